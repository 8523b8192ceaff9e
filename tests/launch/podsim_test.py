"""The parent of a simulated pod, with plain commands in place of training."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
import time

import pytest

from launch import podsim
from training.errors import ConfigError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    podsim.add_arguments(parser)
    return parser.parse_args(arguments)


def pod_of(tmp_path, script: str, hosts: int = 2) -> podsim.SimulatedPod:
    return podsim.SimulatedPod([sys.executable, "-c", script], hosts, 2, tmp_path)


def test_everything_after_the_dashes_belongs_to_the_command():
    args = parse("--hosts", "2", "--", "train", "--config", "a.py", "--hosts", "x")
    assert args.hosts == 2
    assert [word for word in args.rest if word != "--"] == [
        "train", "--config", "a.py", "--hosts", "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no command"),
        (("--",), "no command"),
        (("--hosts", "0", "--", "train"), "at least 1"),
        (("--hosts", "2", "--signal-host", "2", "--", "train"), "use 0 to 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        podsim.run(parse(*arguments))


def test_each_host_gets_its_place_and_no_proxy():
    base = {
        "XLA_FLAGS": "--a --xla_force_host_platform_device_count=8",
        "HTTPS_PROXY": "x",
        "K": "v",
    }
    environment = podsim.host_environment(base, "127.0.0.1:5", hosts=4, index=2, chips=3)
    assert environment["XLA_FLAGS"] == "--a --xla_force_host_platform_device_count=3"
    assert environment["PODVISION_PROCESS_ID"] == "2"
    assert environment["PODVISION_NUM_PROCESSES"] == "4"
    assert environment["K"] == "v"
    assert "HTTPS_PROXY" not in environment


def test_output_is_relayed_with_the_host_and_kept_in_logs(tmp_path, capsys):
    pod = pod_of(tmp_path, "import os; print('I am', os.environ['PODVISION_PROCESS_ID'])")
    assert pod.wait(grace=10) == 0
    out = capsys.readouterr().out
    assert "[host 0] I am 0\n" in out
    assert "[host 1] I am 1\n" in out
    assert (tmp_path / "host-1.log").read_text() == "I am 1\n"


FAIL_ONE = """
import os, sys, time
if os.environ['PODVISION_PROCESS_ID'] == '1':
    sys.exit(4)
time.sleep(60)
"""


def test_the_exit_code_is_that_of_the_first_failure_and_the_rest_is_killed(tmp_path):
    start = time.monotonic()
    pod = pod_of(tmp_path, FAIL_ONE)
    assert pod.wait(grace=0.3) == 4
    assert pod.hosts[0].process.returncode == -signal.SIGKILL
    assert time.monotonic() - start < 20


REPORT_SIGNAL = """
import signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: sys.exit(number))
print('ready', flush=True)
time.sleep(60)
"""


def raise_when_ready(tmp_path, *numbers: int) -> None:
    """Sends signals to this process, in another thread, when both hosts listen to them."""

    def wait_and_raise() -> None:
        logs = [tmp_path / f"host-{index}.log" for index in range(2)]
        while not all(log.exists() and "ready" in log.read_text() for log in logs):
            time.sleep(0.02)
        for number in numbers:
            signal.pthread_kill(threading.main_thread().ident, number)
            time.sleep(0.1)

    threading.Thread(target=wait_and_raise, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("host", [None, 1])
def test_a_signal_is_passed_on_as_it_is_to_all_or_to_the_named_host(tmp_path, host, number):
    pod = pod_of(tmp_path, REPORT_SIGNAL)
    with podsim.forwarded_signals(pod, host) as signals:
        raise_when_ready(tmp_path, number)
        assert pod.wait(grace=0.3) == number
    codes = [each.process.returncode for each in pod.hosts]
    assert codes == [number if host is None else -signal.SIGKILL, number]
    assert not signals.killed


def test_a_second_ctrl_c_kills_all_hosts(tmp_path):
    pod = pod_of(tmp_path, "import time; print('ready', flush=True); time.sleep(60)")
    with podsim.forwarded_signals(pod, 1) as signals:
        raise_when_ready(tmp_path, signal.SIGINT, signal.SIGINT)
        pod.wait(grace=60)
    assert signals.killed
    assert pod.hosts[0].process.returncode == -signal.SIGKILL


def test_importing_the_parent_imports_no_jax():
    code = "import sys, launch.podsim; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

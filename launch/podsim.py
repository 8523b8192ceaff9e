"""`podvision podsim --hosts 4 --chips 4 -- train ...`: a pod slice as processes on this machine.

Every host is one process that runs `python -m launch.cli <rest>` with `--chips` virtual CPU devices
and finds the others as on a real pod. The parent only starts, relays and waits; it imports no JAX.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from training import stop
from training.errors import EXIT_INTERRUPTED, ConfigError

POLL_SECONDS = 0.1
GRACE_SECONDS = 60.0
ON_SIGNAL = stop.OWN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `podvision podsim`."""
    parser.add_argument("--hosts", type=int, default=4, help="processes, one for each host")
    parser.add_argument("--chips", type=int, default=4, help="virtual devices of each host")
    parser.add_argument(
        "--signal-host", type=int, help="pass signals on to this host only, as a real pod may do"
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=GRACE_SECONDS,
        help="seconds that the others have to end after one host failed",
    )
    parser.add_argument("--logs", type=Path, help="folder for host-<n>.log (default: temporary)")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="-- train --config ...")


def run(args: argparse.Namespace) -> int:
    """Runs the simulated pod; the exit code is that of the host that failed first, else 0.

    130 where a second Ctrl-C killed the hosts.

    Raises:
      ConfigError: nothing to run, or impossible numbers.
    """
    rest = args.rest[1:] if args.rest[:1] == ["--"] else args.rest
    if not rest:
        raise ConfigError("podsim has no command; add it after --, as in: podsim -- train ...")
    if args.hosts < 1 or args.chips < 1:
        raise ConfigError(
            f"podsim --hosts {args.hosts} --chips {args.chips}: both must be at least 1"
        )
    if args.signal_host is not None and not 0 <= args.signal_host < args.hosts:
        raise ConfigError(f"podsim --signal-host {args.signal_host}: use 0 to {args.hosts - 1}")
    logs = args.logs or Path(tempfile.mkdtemp(prefix="podsim-"))
    pod = SimulatedPod([sys.executable, "-m", "launch.cli", *rest], args.hosts, args.chips, logs)
    with forwarded_signals(pod, args.signal_host) as signals:
        code = pod.wait(args.grace)
    return EXIT_INTERRUPTED if signals.killed else code


@dataclass
class Host:
    """One process of the pod and the thread that relays its output."""

    index: int
    process: subprocess.Popen[str]
    relay: threading.Thread


class SimulatedPod:
    """The running processes of one simulated pod."""

    def __init__(self, command: Sequence[str], hosts: int, chips: int, logs: Path):
        """Starts `command` once per host.

        Args:
          command: argv of the program, the same for every host.
          hosts: number of processes.
          chips: virtual CPU devices of each.
          logs: folder for `host-<n>.log`; created.
        """
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        address = f"127.0.0.1:{free_port()}"
        print(f"podsim: {hosts} hosts x {chips} chips, logs in {logs}", flush=True)
        self.hosts = [
            self._start(index, command, host_environment(os.environ, address, hosts, index, chips))
            for index in range(hosts)
        ]

    def send(self, number: int, host: int | None = None) -> None:
        """Sends a signal to one host, or to all that still run."""
        for each in self.hosts if host is None else [self.hosts[host]]:
            if each.process.poll() is None:
                each.process.send_signal(number)

    def wait(self, grace: float) -> int:
        """Waits for all; kills the rest if they outlive a failed host by `grace` seconds.

        Returns:
          The exit code of the host that failed first (128 + n for signal n), else 0.
        """
        first_failure, deadline = 0, float("inf")
        running = list(self.hosts)
        while running:
            for host in [host for host in running if host.process.poll() is not None]:
                running.remove(host)
                code = host.process.returncode
                if code != 0 and first_failure == 0:
                    first_failure = code if code > 0 else 128 - code
                    deadline = time.monotonic() + grace
                    print(f"podsim: host {host.index} failed with {first_failure}", flush=True)
            if running and time.monotonic() > deadline:
                print(f"podsim: killing {len(running)} hosts that did not end", flush=True)
                self.send(signal.SIGKILL)
                deadline = float("inf")  # once: nothing outlives SIGKILL
            time.sleep(POLL_SECONDS if running else 0)
        for host in self.hosts:
            host.relay.join()
        return first_failure

    def _start(self, index: int, command: Sequence[str], environment: Mapping[str, str]) -> Host:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Out of the terminal's process group: Ctrl-C reaches the parent, which passes it on.
            start_new_session=True,
        )
        log = self.logs / f"host-{index}.log"
        relay = threading.Thread(target=_relay, args=(index, process.stdout, log), daemon=True)
        relay.start()
        return Host(index, process, relay)


def host_environment(
    base: Mapping[str, str], address: str, hosts: int, index: int, chips: int
) -> dict[str, str]:
    """Environment of one host: CPU only, `chips` devices, and where the coordinator is."""
    flags = [
        flag
        for flag in base.get("XLA_FLAGS", "").split()
        if not flag.startswith("--xla_force_host_platform_device_count")
    ]
    # A proxy for the coordinator on this machine can hang the start.
    direct = {name: value for name, value in base.items() if not name.lower().endswith("_proxy")}
    return {
        **direct,
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": " ".join([*flags, f"--xla_force_host_platform_device_count={chips}"]),
        "OMP_NUM_THREADS": "1",  # the hosts share the cores of one machine
        "PYTHONUNBUFFERED": "1",  # into a pipe, Python would write whole blocks only
        "TPU_SKIP_MDS_QUERY": "1",  # no metadata server is asked, even on a TPU host
        "PODVISION_COORDINATOR": address,
        "PODVISION_NUM_PROCESSES": str(hosts),
        "PODVISION_PROCESS_ID": str(index),
    }


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _relay(index: int, stream: IO[str], log: Path) -> None:
    """Copies the output of a host to its log and, with its name in front, to ours."""
    with log.open("w") as file:
        for line in stream:
            file.write(line)
            file.flush()
            print(f"[host {index}] {line}", end="", flush=True)


class forwarded_signals:
    """While active, SIGTERM and the first Ctrl-C go on to the hosts; a second Ctrl-C kills them."""

    def __init__(self, pod: SimulatedPod, host: int | None):
        self.pod, self.host = pod, host
        self.interrupted = self.killed = False

    def __enter__(self) -> forwarded_signals:
        self.previous = {number: signal.signal(number, self._forward) for number in stop.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and self.interrupted:
            # All, those to which --signal-host passed nothing on included.
            self.killed = True
            self.pod.send(signal.SIGKILL)
            return
        self.interrupted = self.interrupted or number == signal.SIGINT
        self.pod.send(number, self.host)

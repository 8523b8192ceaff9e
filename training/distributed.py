"""Several hosts, one program: start-up, shared decisions and a clean end.

Vocabulary: a *host* is one process of the run (`jax.process_index()`); the *main* host is number 0.
Every function that compares or decides is called by all hosts in the same order, so that a refusal
is the same sentence and the same exit code everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from training import stop, storage
from training.errors import EXIT_DONE, CheckpointError, ConfigError, PodvisionError
from training.storage import PathLike
from training.waiting import said_while_waiting

T = TypeVar("T")

HEARTBEAT_SECONDS = "30"  # the default of 100 makes a crashed host cost minutes
SHUTDOWN_SECONDS = 30  # the default of 300 keeps a failed host waiting for the others
START_SECONDS = 1800  # the default of 300 is less than the hosts of a new slice may be apart
# The port where hosts find each other. JAX's own choice, 8482, is closed by the firewall rule that
# some slices come with; this one is open there.
PORT_VARIABLE, PORT = "JAX_COORDINATOR_PORT", "8476"

ADVICE = (
    f"it ends after {START_SECONDS} s; the run must be started on all of them, and they must reach "
    "the first one's port (podvision pod status names those where it does not run)"
)

COORDINATOR = "PODVISION_COORDINATOR"
NUM_PROCESSES = "PODVISION_NUM_PROCESSES"
PROCESS_ID = "PODVISION_PROCESS_ID"
JOB_HOSTS = "PODVISION_JOB_HOSTS"  # how many `podvision pod start` started
HEARTBEAT = "PODVISION_HEARTBEAT_SECONDS"  # for tests; unset on a pod

# Of this process, about the stop that all hosts agree on.
_calls = 0
_stopping = False


def initialize(environment: Mapping[str, str] | None = None) -> None:
    """Joins the other hosts, if there are any, and lets them all know of a signal to one.

    Must run before any other use of JAX. In order: the PODVISION_* variables that `podvision
    podsim` sets; a cluster that JAX detects by itself (Cloud TPU, SLURM, Kubernetes); otherwise
    one process.

    Raises:
      ConfigError: the PODVISION_* variables are incomplete or not numbers, or the run was started
        on another number of hosts than have found each other.
    """
    environment = os.environ if environment is None else environment
    _join(environment)
    if JOB_HOSTS in environment:
        check_hosts(_number(environment, JOB_HOSTS), jax.process_count())


def check_hosts(started: int, found: int) -> None:
    """Refuses a run whose hosts do not know of each other: each would train a model of its own.

    Raises:
      ConfigError: the two differ.
    """
    if started != found:
        raise ConfigError(
            f"this run was started on {started} hosts and {found} found each other; start it on "
            "all workers at once (podvision pod start), and see that their ports are open"
        )


def _join(environment: Mapping[str, str]) -> None:
    limits: dict[str, Any] = {
        "heartbeat_timeout_seconds": int(environment.get(HEARTBEAT, HEARTBEAT_SECONDS)),
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
        "initialization_timeout": START_SECONDS,
    }
    if COORDINATOR in environment:
        limits |= {
            "coordinator_address": environment[COORDINATOR],
            "num_processes": _number(environment, NUM_PROCESSES),
            "process_id": _number(environment, PROCESS_ID),
            # The local devices stay open, and JAX would look for a cluster to ask about them.
            "cluster_detection_method": "deactivate",
        }
    elif not _several_hosts(environment):
        return
    else:
        os.environ.setdefault(PORT_VARIABLE, PORT)
    # It waits for the others in silence, and nothing is there yet to be saved.
    with stop.ending_freely(), said_while_waiting("the other hosts", ADVICE):
        jax.distributed.initialize(**limits)
    if stop.answers():
        # The coordination service has its own handler of SIGTERM now, which tells the others.
        stop.pass_on_to(lambda: os.kill(os.getpid(), signal.SIGTERM))
    else:
        stop.take_signals_back()


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdigit():
        raise ConfigError(f"{name} is {text!r}; set it to a whole number")
    return int(text)


def _several_hosts(environment: Mapping[str, str]) -> bool:
    """Whether JAX should look for other hosts: TPU VM, SLURM job step, indexed Kubernetes job.

    Asked only where the answer can be yes, because a metadata server that does not answer costs
    seconds.
    """
    slurm = "SLURM_PROCID" in environment and int(environment.get("SLURM_NTASKS") or "1") > 1
    kubernetes = "JOB_COMPLETION_INDEX" in environment and "KUBERNETES_SERVICE_HOST" in environment
    return slurm or kubernetes or _on_tpu_host(environment)


def _on_tpu_host(environment: Mapping[str, str]) -> bool:
    elsewhere = environment.get("JAX_PLATFORMS", "").startswith(("cpu", "cuda"))
    if elsewhere or "TPU_SKIP_MDS_QUERY" in environment:
        return False
    # Older TPUs are accel devices, newer ones vfio, which other hardware may be, too: libtpu
    # must be there as well.
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def stop_requested() -> bool:
    """Whether all hosts are to stop, because one of them got SIGTERM or Ctrl-C.

    With several hosts, call it equally often and in the same order on each: the answer turns true
    at one common call on all of them, at most one call after the signal has spread, and stays true.
    """
    global _calls, _stopping
    if not jax.distributed.is_initialized():
        return stop.requested()
    if not _stopping:
        # The service waits for exactly the number after the largest it has seen, so it is given
        # calls, which are consecutive: steps are not when one dispatch makes several updates.
        _calls += 1
        _stopping = multihost_utils.reached_preemption_sync_point(_calls)
    return _stopping


def raise_if_stopping() -> None:
    """For long work such as an evaluation: call it between its parts, like `stop_requested`.

    Raises:
      StopRequested: on all hosts at the same call.
    """
    if stop_requested():
        raise stop.StopRequested


def in_a_hurry() -> bool:
    """Whether this host is to stop: then it waits for no thread, one of which may never end."""
    return _stopping or stop.was_requested()


def interruptible() -> AbstractContextManager[None]:
    """A wait that a stop breaks off; not with several hosts, which would wait for this one."""
    if jax.distributed.is_initialized():
        return contextlib.nullcontext()
    return stop.interruptible()


def interruptible_call(function: Callable[[], T]) -> T:
    """The result of a call that may be minutes in native code, such as a compilation.

    Raises:
      StopRequested: the call goes on in its thread, and nobody will wait for it.
    """
    if jax.distributed.is_initialized() or not stop.answers():
        return function()
    return stop.in_a_thread(function)


def is_main() -> bool:
    """Whether this host writes what is written once."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every host is here; nothing to wait for with one host."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def assert_same(name: str, value: Any) -> None:
    """Checks that a JSON value (a config, a step, a list of files) is equal on every host.

    Raises:
      ConfigError: on all hosts, naming those that differ from the main host.
    """
    if jax.process_count() == 1:
        return
    text = json.dumps(value, sort_keys=True, default=str)
    # uint32: without x64, which is off, JAX would cut 64-bit words in half.
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], np.uint32)
    everyone = multihost_utils.process_allgather(digest)
    differ = [host for host, other in enumerate(everyone) if (other != everyone[0]).any()]
    if differ:
        raise ConfigError(
            f"{name} on {_hosts(differ)} differs from host 0; start every host with the same "
            f"code, config and files"
        )


def check_shared_folder(folder: PathLike) -> None:
    """Creates a folder and checks that what the main host writes there is seen by all hosts.

    Raises:
      CheckpointError: on all hosts, if it cannot be written or is not shared.
    """
    folder = storage.as_path(folder)
    # A new name each time: a probe that an earlier start left behind would prove nothing.
    token = _shared_number()
    probe = folder / f".probe-{token}"
    failure = _try_write(probe) if is_main() else ""
    barrier(f"probe written {token}")
    # Told to all before it is raised: a host that raised alone would leave the others waiting.
    unwritable = _flags(bool(failure))
    if unwritable:
        raise CheckpointError(
            f"{folder} cannot be written by host 0{failure and f' ({failure})'}; "
            f"choose a --workdir with write permission and free space"
        )
    unseen = _flags(not _appears(probe))
    if is_main():
        probe.unlink()
    if unseen:
        raise CheckpointError(
            f"{folder} is not shared: {_hosts(unseen)} cannot see what host 0 writes there; "
            f"choose a --workdir on storage that all hosts mount, or gs://"
        )


def _try_write(probe: epath.Path) -> str:
    """The reason why the probe cannot be written, or nothing."""
    try:
        storage.make_folder(probe.parent)
        probe.write_text("probe")
    except (OSError, *storage.failures()) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ""


def _appears(probe: epath.Path) -> bool:
    """Whether a file appears within 5 s: network file systems remember that it was missing."""
    for _ in range(10):
        if probe.exists():
            return True
        time.sleep(0.5)
    return False


def _shared_number() -> int:
    """A random number, the same on every host."""
    number = secrets.randbits(31)  # it travels as an int32
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.asarray(number, np.int32)))


def _flags(flag: bool) -> list[int]:
    """The hosts on which `flag` is true."""
    if jax.process_count() == 1:
        return [0] if flag else []
    everyone = multihost_utils.process_allgather(np.asarray(flag))
    return [host for host, up in enumerate(everyone) if up]


def _hosts(hosts: list[int]) -> str:
    return ("host " if len(hosts) == 1 else "hosts ") + ", ".join(map(str, hosts))


def exit_hook(main: Callable[[], int], *, debug: bool = False) -> int:
    """Runs the program and turns its failure into an exit code.

    With several hosts a failure ends the process at once: an ordinary interpreter exit would wait
    in the shutdown barrier for hosts that wait in a collective for this one.

    Args:
      main: returns the exit code.
      debug: print the traceback of errors that are meant for the user, too.

    Returns:
      The exit code of `main`, or that of the error if this is the only host.

    Raises:
      Exception: whatever is not a PodvisionError, if this is the only host.
    """
    try:
        return main()
    except PodvisionError as error:
        if debug:
            traceback.print_exc()
        print(f"podvision: error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        if not jax.distributed.is_initialized():
            raise
        print(f"podvision: {stop.interrupted()}", file=sys.stderr)
        code = stop.exit_code()
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        print("podvision: this host stops, and takes the others with it", file=sys.stderr)
        code = 1
    if jax.distributed.is_initialized():
        leave(code)
    return code


def end(code: int) -> None:
    """The last act of a program: returns for an ordinary exit, if there is time for one.

    Threads of an interrupted save, or a reader that waits for data, would keep an ordinary exit
    waiting for minutes. After a stop the hosts part in the shutdown barrier. After a failure no
    host waits there, because the others may hang in a collective and never come.
    """
    if code == EXIT_DONE and not in_a_hurry():
        return
    clean = code == EXIT_DONE or (in_a_hurry() and code == stop.preempted_exit_code())
    if clean and jax.distributed.is_initialized():
        jax.distributed.shutdown()
    leave(code)


def leave(code: int) -> None:
    """Ends the process now, without waiting for other hosts or for threads that write."""
    # `os._exit` would drop what is still buffered.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""Several hosts, one program: start-up, shared decisions and a clean end.

Vocabulary: a *host* is one process of the run (`jax.process_index()`); the *main* host is number 0.
Every function that compares or decides is called by all hosts in the same order, so that a refusal
is the same sentence and the same exit code everywhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from training.errors import CheckpointError, ConfigError, PodvisionError

HEARTBEAT_SECONDS = "30"  # the default of 100 makes a crashed host cost minutes
SHUTDOWN_SECONDS = 30  # the default of 300 keeps a failed host waiting for the others
START_SECONDS = 300

COORDINATOR = "PODVISION_COORDINATOR"
NUM_PROCESSES = "PODVISION_NUM_PROCESSES"
PROCESS_ID = "PODVISION_PROCESS_ID"
HEARTBEAT = "PODVISION_HEARTBEAT_SECONDS"  # for tests; unset on a pod

# Set by SIGTERM when this is the only process; with several, the coordinator tells all hosts.
_stop_requested = False
_calls = 0


class StopRequested(Exception):
    """Raised out of long work between steps, such as an evaluation, when a host is to stop."""


def raise_if_stopping(step: int) -> None:
    """Raises StopRequested where `reached_preemption` is true; to be called as equally often."""
    if reached_preemption(step):
        raise StopRequested


def initialize(environment: Mapping[str, str] | None = None) -> None:
    """Joins the other hosts, if there are any, and makes SIGTERM a request to stop.

    Must run before any other use of JAX. In order: the PODVISION_* variables that `podvision
    podsim` sets; a cluster that JAX detects by itself (Cloud TPU, SLURM, Kubernetes); otherwise
    one process.

    Raises:
      ConfigError: the PODVISION_* variables are incomplete or not numbers.
    """
    environment = os.environ if environment is None else environment
    limits: dict[str, Any] = {
        "heartbeat_timeout_seconds": int(environment.get(HEARTBEAT, HEARTBEAT_SECONDS)),
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
        "initialization_timeout": START_SECONDS,
    }
    if COORDINATOR in environment:
        jax.distributed.initialize(
            environment[COORDINATOR],
            num_processes=_number(environment, NUM_PROCESSES),
            process_id=_number(environment, PROCESS_ID),
            cluster_detection_method="deactivate",
            **limits,
        )
    elif _several_hosts(environment):
        jax.distributed.initialize(**limits)
    else:
        signal.signal(signal.SIGTERM, _request_stop)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdigit():
        raise ConfigError(f"{name} is {text!r}, but {COORDINATOR} is set; set it to a whole number")
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
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _request_stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    global _stop_requested
    _stop_requested = True


def reached_preemption(step: int) -> bool:
    """Whether all hosts are to save now and stop, because one of them got SIGTERM.

    Call it equally often on every host, at the same steps; `step` is for the log. With several
    hosts the answer turns true at one common call on all of them, at most one call after the signal
    has spread.
    """
    global _calls
    _calls += 1
    # The service waits for exactly the number after the largest it has seen, so it is given calls,
    # which are consecutive: steps are not when one dispatch makes several updates.
    if jax.distributed.is_initialized():
        stop = multihost_utils.reached_preemption_sync_point(_calls)
    else:
        stop = _stop_requested
    if stop:
        logging.info("asked to stop: saving step %d", step)
    return stop


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
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], np.uint32)
    everyone = multihost_utils.process_allgather(digest)
    differ = [host for host, other in enumerate(everyone) if (other != everyone[0]).any()]
    if differ:
        raise ConfigError(
            f"{name} on {_hosts(differ)} differs from host 0; start every host with the same "
            f"code, config and files"
        )


def check_shared_folder(folder: epath.PathLike) -> None:
    """Creates a folder and checks that what the main host writes there is seen by all hosts.

    Raises:
      CheckpointError: on all hosts, if it cannot be written or is not shared.
    """
    folder = epath.Path(folder)
    token = _shared_number()
    probe = folder / f".probe-{token}"
    failure = _try_write(probe) if is_main() else ""
    barrier(f"probe written {token}")
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
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text("probe")
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _appears(probe: epath.Path) -> bool:
    """Whether a file is there within a few seconds; network file systems cache what is missing."""
    for _ in range(10):
        if probe.exists():
            return True
        time.sleep(0.5)
    return False


def _shared_number() -> int:
    """A random number, the same on every host."""
    number = secrets.randbits(31)
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
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        logging.exception("this host stops, and takes the others with it")
        code = 1
    if jax.distributed.is_initialized():
        leave(code)
    return code


def leave(code: int) -> None:
    """Ends the process now, without waiting for other hosts or for threads that write.

    A command that failed uses it as its last act: threads of an interrupted save would keep an
    ordinary exit waiting for minutes.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

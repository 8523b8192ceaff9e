"""Asks a child process about the update of a config on a slice, with libtpu where it is there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from launch.preflight.stand_in import StandIn
from launch.preflight.topology import topology
from training.errors import ConfigError, InputError

# On two cores a large program takes five to twenty.
COMPILE_MINUTES = 60.0
HOW_TO_INSTALL = "libtpu is not installed; run pip install 'podvision[tpu]' and ask again"
# Without these libtpu looks for the devices of this machine, and refuses a second process.
ISOLATED = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    # Programs for a TPU are not kept: the verdicts are.
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}


@dataclass(frozen=True)
class Request:
    """What the child is asked.

    Attributes:
      config, overrides, stage: as on the command line; the stage is "" of a plain config.
      topology: name of the slice.
      stand_in: facts instead of data, or None where the data are there.
    """

    config: str
    overrides: tuple[str, ...]
    stage: str
    topology: str
    stand_in: StandIn | None = None


def has_libtpu() -> bool:
    """Whether the compiler for TPUs is installed."""
    return importlib.util.find_spec("libtpu") is not None


def ask(request: Request, minutes: float = COMPILE_MINUTES) -> dict[str, Any]:
    """The child's answer, see `child.answered`.

    Args:
      minutes: after which it is ended.

    Raises:
      ConfigError: the config does not fit the slice.
      InputError: the child crashed, and the sentence has its last words; or it took too long.
    """
    libtpu = has_libtpu()
    environment = os.environ | ISOLATED
    if not libtpu:
        # As many devices of the CPU stand for the slice: shapes and shardings are the same.
        count = topology(request.topology).devices
        flag = f"--xla_force_host_platform_device_count={count}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}"
    text = json.dumps(asdict(request) | {"libtpu": libtpu})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "launch.preflight.child", text],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60 * minutes,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"compiling for {request.topology} did not end within {minutes:g} minutes; on a quiet "
            "machine, or with more of them (--compile-minutes), it may"
        ) from error
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(
            f"compiling for {request.topology} ended with code {done.returncode}; its last words: "
            f"{said[-1][:300] if said else 'none'}"
        )
    answer = json.loads(lines[-1])
    if "error" in answer:
        raise ConfigError(answer["error"])
    return answer

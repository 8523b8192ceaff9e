"""Shared fixtures. Eight virtual CPU devices; accidental broadcasting is an error."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("MPLBACKEND", "agg")
# Compiling is most of the tests' time: tests, workers and later runs share what was compiled.
CACHE = Path(tempfile.gettempdir()) / f"podvision-tests-{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    ).strip()

import jax  # noqa: E402
import pytest  # noqa: E402

from tests.places import bucket, place, service  # noqa: E402, F401 - fixtures

jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="module")
def release_compiled_programs():
    """Drops compiled programs after each module: a whole session would hold many gigabytes."""
    yield
    jax.clear_caches()


@contextlib.contextmanager
def quickly_compiled():
    """Compiling takes longer than running here, so most optimizations are left out."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def quick_compilation():
    """`quickly_compiled` for a whole module."""
    with quickly_compiled():
        yield


@pytest.fixture
def new_key():
    """A function that returns a fresh PRNG key at each call, so that no test reuses one."""
    seeds = itertools.count(5678)
    return lambda: jax.random.key(next(seeds))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with real sample data; skips the test, with a reason, where it is absent."""
    root = Path(os.environ.get("PODVISION_DATA", REPOSITORY.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no sample data at {root} (set PODVISION_DATA)")
    return root

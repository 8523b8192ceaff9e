"""Compiled programs are kept on disk, apart for CPUs that execute other instructions."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

from launch.platform import instruction_set, prepare_jax
from tests.conftest import REPOSITORY

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def folder_not_chosen():
    """As for a user who set no variable of JAX."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("folder_not_chosen")
def test_programs_of_this_cpu_have_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PODVISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    prepare_jax()
    folder = tmp_path / "cache" / "compiled" / f"cpu-{instruction_set()}"
    assert folder.is_dir() and jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0


@pytest.mark.usefixtures("folder_not_chosen")
def test_a_folder_that_cannot_be_made_is_told_and_the_command_goes_on(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("PODVISION_CACHE", str(tmp_path / "cache"))
    prepare_jax()
    assert jax.config.jax_compilation_cache_dir is None
    assert "cannot be kept" in capsys.readouterr().err


def test_a_folder_of_the_user_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PODVISION_CACHE", str(tmp_path / "cache"))
    chosen = jax.config.jax_compilation_cache_dir
    prepare_jax()
    assert jax.config.jax_compilation_cache_dir == chosen and not (tmp_path / "cache").exists()


def test_cpus_differ_by_what_they_execute_and_not_by_their_speed(tmp_path):
    def digest(flags, speed):
        path = tmp_path / "cpuinfo"
        core = f"model name\t: some CPU\ncpu MHz\t\t: {speed}\nflags\t\t: {flags}\n\n"
        path.write_text(core * 2)
        return instruction_set(path)

    assert digest("sse avx2", 2000.1) == digest("sse avx2", 3100.7)
    assert digest("sse avx2", 2000.1) != digest("sse avx2 avx512f", 2000.1)
    assert instruction_set(tmp_path / "none") != digest("sse avx2", 2000.1)


SCRIPT = """
import pathlib, sys
from launch.platform import prepare_jax
prepare_jax()
import jax
def double(x): return 2 * x
assert jax.jit(double)(3.0) == 6
(entry,) = pathlib.Path(jax.config.jax_compilation_cache_dir).glob("jit_double-*-cache")
entry.write_bytes(b"damaged")
jax.clear_caches()
assert jax.jit(double)(4.0) == 8
"""


def test_a_damaged_entry_is_compiled_anew(tmp_path):
    dropped = {"JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"}
    environment = {k: v for k, v in os.environ.items() if k not in dropped}
    environment |= {"PODVISION_CACHE": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, cwd=REPOSITORY, check=True)

"""Tiny prepared OCT volumes, and commands run inside the test process on one device."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

import training.loop
from launch.cli import main
from tests.smoke.commands import RECIPE, prepare_synthetic
from training.mesh import make_mesh


@pytest.fixture(scope="session")
def oct_records(tmp_path_factory) -> Path:
    """Prepared synthetic volumes of 8 x 32 x 32 voxels: 6 to train on, 2 held out."""
    return prepare_synthetic(tmp_path_factory.mktemp("oct"), participants=4)


@pytest.fixture(scope="session")
def shared_programs(tmp_path_factory):
    """Compiled programs are kept on disk, because these tests compile the same ones again."""
    before = jax.config.jax_compilation_cache_dir
    if before is None:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
        compilation_cache.reset_cache()
    yield
    if before is None:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


@dataclass
class Command:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def one_device(monkeypatch, shared_programs):
    """Training in this process uses the first device: eight on two cores only cost time."""

    def first_device(config, devices=None):
        return make_mesh(config, jax.devices()[:1] if devices is None else devices)

    monkeypatch.setattr(training.loop, "make_mesh", first_device)


@pytest.fixture
def podvision(one_device, capsys):
    """Runs `podvision ...` in this process."""

    def run(*arguments: object) -> Command:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            code = main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, handler)
        return Command(code, *capsys.readouterr())

    return run


@pytest.fixture
def tiny_recipe(tmp_path):
    """A function: folder of records -> `FILE.py:FOLDER` of a recipe with 12 updates."""
    path = tmp_path / "tiny.py"
    path.write_text(RECIPE)
    return lambda folder: f"{path}:{folder}"

"""A prepared folder of small synthetic OCT volumes and a recipe that trains on it in seconds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch import cli
from tests.smoke.commands import RECIPE, prepare_synthetic

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny_oct(tmp_path_factory) -> Path:
    """Prepared synthetic volumes of 8 x 32 x 32 voxels."""
    return prepare_synthetic(tmp_path_factory.mktemp("oct"))


@pytest.fixture(scope="session")
def recipe(tiny_oct, tmp_path_factory) -> str:
    """`FILE.py:FOLDER` of a recipe with 12 updates."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.py"
    path.write_text(RECIPE)
    return f"{path}:{tiny_oct}"


@dataclass
class Result:
    """How a command ended and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def podvision(capfd):
    """Runs `podvision ...` in this process, on its eight virtual devices."""

    def run(*arguments) -> Result:
        capfd.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return Result(code, *capfd.readouterr())

    return run


def command_environment(devices: int = 1) -> dict[str, str]:
    """Environment of a command on a CPU with so many virtual devices."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }

"""A small synthetic scene on disk, rendered once a session and copied where it is changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from splats.synthetic import SyntheticConfig, write_scene


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory) -> Path:
    """Nine views of 24x18 and 100 points; read only."""
    config = SyntheticConfig(views=9, width=24, height=18, points=100, samples=1)
    return write_scene(tmp_path_factory.mktemp("scene"), config)


@pytest.fixture
def scene_copy(scene_folder, tmp_path) -> Path:
    """A private copy of `scene_folder`."""
    return Path(shutil.copytree(scene_folder, tmp_path / "scene"))

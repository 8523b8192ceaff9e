"""A trained model is used from its checkpoint alone: the folder of its scene is deleted first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

from launch.cli import main
from splats.config import SceneConfig
from splats.data.scene_facts import SceneFacts, from_metadata, to_metadata
from splats.export import trained_cloud
from splats.formats import GaussianCloud, read_cloud
from splats.synthetic import SyntheticConfig, write_scene
from splats.task import SplatTask, make_task
from splats.video.camera_path import CameraPath, write_path
from splats.video.scene_path import orbit_of_scene
from splats.viewer.follow import read_shown
from tests.splats.scenes import make_program, small_config, view_renderer
from training.checkpoint.first import write_first_checkpoint
from training.checkpoint.restore import restored
from training.errors import CheckpointError, InputError
from training.program import Program

pytestmark = pytest.mark.usefixtures("quick_compilation")
WIDTH, HEIGHT, POINTS = 32, 24, 150


class Run(NamedTuple):
    """A work folder, and what was known while the scene was there."""

    workdir: Path
    facts: SceneFacts
    cloud: GaussianCloud
    rendered: np.ndarray  # view 3, float32


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("gone")
    size = SyntheticConfig(views=10, width=WIDTH, height=HEIGHT, points=POINTS, samples=1)
    scene = write_scene(folder / "scene", size)
    config = small_config(scene=SceneConfig(path=str(scene)))
    task = make_task(config)
    assert isinstance(task, SplatTask)
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
    write_first_checkpoint(folder / "run", program, state, config, [])
    known = Run(
        folder / "run", task.facts, trained_cloud(task, state).cloud, view_renderer(task, state)(3)
    )
    shutil.rmtree(scene)
    return known


def task_in(program: Program) -> SplatTask:
    assert isinstance(program.task, SplatTask)
    return program.task


def test_an_export_needs_no_photograph(run, tmp_path):
    path = tmp_path / "a.ply"
    assert main(["export", "--workdir", str(run.workdir), "--output", str(path)]) == 0
    np.testing.assert_array_equal(read_cloud(path).means, run.cloud.means)
    np.testing.assert_array_equal(read_cloud(path).harmonics, run.cloud.harmonics)


def frames(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))]


def test_an_orbit_needs_no_photograph(run, tmp_path):
    arguments = ["--workdir", str(run.workdir), "--input", "orbit:2", "--output", str(tmp_path)]
    assert main(["predict", *arguments]) == 0
    assert [frame.shape for frame in frames(tmp_path)] == [(HEIGHT, WIDTH, 3)] * 2
    program, _, _ = restored(run.workdir, "latest")
    found, expected = (orbit_of_scene(f, 5) for f in (task_in(program).facts, run.facts))
    np.testing.assert_array_equal(found.world_to_camera, expected.world_to_camera)
    np.testing.assert_array_equal(found.intrinsics, expected.intrinsics)


def test_a_path_in_json_is_drawn_as_the_view_was_beside_the_photographs(run, tmp_path):
    """The path is in the world of the data set: the saved normalization is the right one."""
    facts, view = run.facts, 3
    scale = np.cbrt(np.linalg.det(facts.normalization[:3, :3]))
    pose = facts.world_to_camera[view].astype(np.float64) @ facts.normalization
    pose[:3] /= scale  # rigid again: lengths in units of the data set
    values = facts.intrinsics[view][[0, 1, 0, 1], [0, 1, 2, 2]].astype(np.float64)
    path = CameraPath(pose[None], values[None], WIDTH, HEIGHT)
    write_path(tmp_path / "path.json", path)
    arguments = ["--workdir", str(run.workdir), "--input", str(tmp_path / "path.json")]
    assert main(["predict", *arguments, "--output", str(tmp_path / "out")]) == 0
    (drawn,) = frames(tmp_path / "out")
    # Half a step of 8 bits, and what rounding of the pose moves.
    assert np.abs(drawn - 255 * np.clip(run.rendered, 0, 1)).max() < 1.5


def test_the_viewer_loads_a_checkpoint_without_photographs(run):
    shown = read_shown(run.workdir, "latest")
    assert len(shown.cloud) == POINTS and shown.total == 60
    np.testing.assert_array_equal(shown.task.facts.test, run.facts.test)
    with pytest.raises(InputError, match="photographs of this run are gone"):
        _ = shown.task.scene


def test_scores_without_photographs_are_refused_in_one_sentence(run, capsys):
    assert main(["evaluate", "--workdir", str(run.workdir)]) == 2
    said = capsys.readouterr().err.strip()
    assert "photographs of this run are gone" in said and "\n" not in said
    assert not (run.workdir / "eval").exists()


def test_facts_come_back_from_json_bit_by_bit(run):
    found = from_metadata(json.loads(json.dumps(to_metadata(run.facts))))
    for name in ("sizes", "world_to_camera", "intrinsics", "normalization", "train", "test"):
        expected = getattr(run.facts, name)
        np.testing.assert_array_equal(getattr(found, name), expected)
        assert getattr(found, name).dtype == expected.dtype, name
    assert (found.names, found.split) == (run.facts.names, run.facts.split)
    assert (found.kind, found.scene_scale) == (run.facts.kind, run.facts.scene_scale)


def test_photographs_of_another_world_are_refused(run, tmp_path):
    """Put back, but reconstructed again."""
    program, _, _ = restored(run.workdir, "latest")
    scene = Path(program.task.config.scene.path)
    size = SyntheticConfig(views=10, width=WIDTH, height=HEIGHT, points=POINTS, samples=1, seed=3)
    write_scene(scene, size)
    try:
        with pytest.raises(CheckpointError, match="normalized world is another one"):
            _ = task_in(program).scene
    finally:
        shutil.rmtree(scene)

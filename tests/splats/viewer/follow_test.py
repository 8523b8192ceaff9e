"""Checkpoints on show, exact renderings, and the command's refusals; none of it needs viser."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from launch.cli import main
from splats.export import trained_cloud
from splats.viewer import geometry
from splats.viewer.follow import Renderings, Shown, newest_step, read_shown, scores_of, status
from splats.viewer.serving import take_newest
from tests.splats.scenes import POINTS, make_program, small_task, view_renderer
from training.checkpoint.first import write_first_checkpoint

pytestmark = pytest.mark.usefixtures("quick_compilation")
SCORES = {"step": 200, "psnr": 21.5, "ssim": 0.75, "train_psnr": 24.0, "lpips_vgg": 0.25}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Work folder with a checkpoint of step 0 and evaluations of steps 200 and 400, its task."""
    program = make_program(small_task())
    folder = tmp_path_factory.mktemp("view") / "run"
    state = program.initial_state()
    write_first_checkpoint(folder, program, state, program.config, [])
    (folder / "eval").mkdir()
    for step in (200, 400):
        (folder / "eval" / f"{step}.json").write_text(json.dumps(SCORES | {"step": step}))
    return folder, program.task, state


@pytest.fixture(scope="module")
def shown(run) -> Shown:
    folder, task, _ = run
    return read_shown(folder, "latest", task)


def test_a_checkpoint_is_read_with_its_gaussians_in_the_world_of_training(run, shown):
    _, task, state = run
    expected = trained_cloud(task, state, normalized=True).cloud
    assert shown.step == 0 and len(shown.cloud) == POINTS
    np.testing.assert_array_equal(shown.cloud.means, expected.means)
    assert shown.task.scene is task.scene  # photographs are not read again


@pytest.mark.parametrize("view", [0, 5])
def test_an_exact_rendering_from_a_photographs_place_is_that_of_evaluation(shown, view):
    """Through the browser's convention and back: same camera, same picture."""
    scene = shown.task.scene
    width, height = scene.sizes[view].tolist()
    wxyz, position = geometry.pose_for_browser(scene.world_to_camera[view])
    angle = geometry.view_angle(scene.intrinsics[view], height)
    intrinsics, rounded = geometry.pinhole_of_browser(angle, width / height, height)
    assert rounded == width
    pose = geometry.pose_of_browser(wxyz, position)
    found = Renderings().render(shown, pose, intrinsics, width, height)
    expected = view_renderer(shown.task, shown.state)(view)
    assert expected.std() > 0.02
    assert np.abs(found - 255 * np.clip(expected, 0, 1)).max() < 1.5


def test_controls_change_exact_renderings_and_room_for_pairs_is_kept(shown):
    scene, renderings = shown.task.scene, Renderings()
    camera = (scene.world_to_camera[0].astype(np.float64), scene.intrinsics[0])
    plain = renderings.render(shown, *camera, 48, 32)
    assert renderings.render(shown, *camera, 48, 32, faintest=0.9).max() == 0
    assert renderings.render(shown, *camera, 48, 32, size=0.2).mean() < 0.7 * plain.mean()
    crowded = renderings.render(shown, *camera, 48, 32, size=8.0)
    assert renderings.pair_capacity > shown.task.sizes.pair_capacity
    assert crowded.mean() > plain.mean()


def test_scores_are_those_of_the_newest_evaluation_up_to_the_step(run, shown):
    folder, *_ = run
    assert scores_of(folder, 199) == {}
    assert [scores_of(folder, step)["step"] for step in (200, 399, 400, 900)] == [
        200,
        200,
        400,
        400,
    ]
    text = status(replace(shown, step=300, scores=scores_of(folder, 300)), 1000)
    for words in ("step 300** of 1,000", f"{POINTS} Gaussians", "21.50 dB", "24.00", "at step 200"):
        assert words in text
    assert "lpips_vgg: 0.250" in text
    assert "not evaluated yet" in status(shown, None)


def recording_page(shown: Shown | None = None) -> SimpleNamespace:
    page = SimpleNamespace(shown=shown, said=[])
    page.say = page.said.append
    page.show = lambda shown: setattr(page, "shown", shown)
    return page


def test_new_checkpoints_are_taken_over_once_and_damaged_ones_are_reported(run, shown, tmp_path):
    folder, *_ = run
    assert newest_step(tmp_path) is None
    page = recording_page()
    take_newest(page, tmp_path)  # type: ignore[arg-type]
    assert page.shown is None and "waiting" in page.said[0]
    earlier = replace(shown, step=-1, scores={})
    page = recording_page(earlier)
    take_newest(page, folder)  # type: ignore[arg-type]
    first = page.shown
    assert first.step == 0 and first.task.scene is shown.task.scene
    take_newest(page, folder)  # type: ignore[arg-type]
    assert page.shown is first
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "checkpoints" / "0" / "state" / "d")
    page = recording_page(earlier)
    take_newest(page, copy)  # type: ignore[arg-type]
    assert page.shown is earlier and "step 0 could not be read" in page.said[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "0"], "--port 0 is no port"),
        (["--follow", "--step", "best"], "leave --step best out"),
    ],
)
def test_arguments_that_cannot_work_are_refused(run, options, said, capsys):
    assert main(["view", "--workdir", str(run[0]), *options]) == 2
    assert said in capsys.readouterr().err


def test_without_viser_the_command_says_what_to_install(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main(["view", "--workdir", str(run[0])]) == 2
    assert "pip install 'podvision[viewer]'" in capsys.readouterr().err


def test_a_folder_without_a_run_and_a_run_of_another_system_are_refused(tmp_path, capsys):
    assert main(["view", "--workdir", str(tmp_path)]) == 2
    assert "is not the work folder of a run" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({"config": {"system": "jepa3d"}}))
    assert main(["view", "--workdir", str(tmp_path)]) == 2
    assert "has nothing for 'jepa3d'" in capsys.readouterr().err

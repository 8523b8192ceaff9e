"""Export, import and rendering of a trained scene, through the commands, on a tiny scene."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from launch.cli import main
from splats.data.capture_reader import read_capture
from splats.data.normalization import camera_centers
from splats.export import trained_cloud
from splats.formats import FORMATS, read_cloud, write_cloud
from splats.formats.inria_ply import read_inria_ply
from splats.formats.ply_container import read_ply, write_ply
from splats.predict import shrunk
from splats.synthetic import SyntheticConfig, write_scene
from splats.video.camera_path import CameraPath, path_of_capture, write_path
from splats.video.scene_path import common_point, orbit_of_scene
from tests.conftest import quickly_compiled
from tests.splats.formats.clouds import random_cloud
from tests.splats.scenes import view_renderer
from training.checkpoint.restore import restored
from training.checkpoint.store import CheckpointReader
from training.errors import InputError
from training.mesh import make_mesh

WIDTH, HEIGHT, POINTS = 32, 24, 150
RECIPE = """
from ml_collections import ConfigDict

from splats.config import splat_optimizer
from training.typed import plain


def get_config(arg=""):
    return ConfigDict(
        {
            "system": "splats",
            "total": {"updates": 12},
            "scene": {"path": arg},
            # Harmonics move fast, so that scores tell whether they are used and turned.
            "optimizer": plain(splat_optimizer(shN=5e-2)),
            "model": {"initial_capacity": 256, "cap_max": 512, "sh_degree": 1, "sh_every": 4},
            "densify": {"strategy": "none"},
            "render": {"pair_capacity": 4096},
            "evaluation": {"every": {"updates": 12}, "batch_size": 1},
            "checkpoint": {"every": {"updates": 12}},
        }
    )
"""


@pytest.fixture(scope="module", autouse=True)
def fast():
    """Training on one of the virtual devices: a batch of one view fits no more."""
    with quickly_compiled(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.loop.make_mesh", lambda c: make_mesh(c, jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    size = SyntheticConfig(views=10, width=WIDTH, height=HEIGHT, points=POINTS, samples=1)
    return write_scene(tmp_path_factory.mktemp("scene") / "s", size)


@pytest.fixture(scope="module")
def recipe(scene, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny.py"
    path.write_text(RECIPE)
    return f"{path}:{scene}"


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory) -> Path:
    """Work folder of 12 updates; harmonics of degree 1 in use."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "--config", recipe, "--workdir", str(workdir)]) == 0
    return workdir


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ply") / "scene.ply"
    assert main(["export", "--workdir", str(trained), "--output", str(path)]) == 0
    return path


def reopened(workdir: Path) -> tuple[Any, Any, int]:
    """Program, state and step of the newest checkpoint."""
    return restored(workdir, "latest")


def evaluation(workdir: Path, step: int) -> dict[str, float]:
    """Runs the command and reads what it wrote."""
    assert main(["evaluate", "--workdir", str(workdir)]) == 0
    return json.loads((workdir / "eval" / f"{step}.json").read_text())


@pytest.mark.slow
def test_an_exported_and_imported_scene_scores_the_same_and_training_goes_on(
    trained, exported, recipe, tmp_path
):
    before = json.loads((trained / "eval" / "12.json").read_text())
    workdir = tmp_path / "imported"
    arguments = ["--workdir", str(workdir), "--config", recipe]
    assert main(["import", "splats", "--from", str(exported), *arguments]) == 0
    after = evaluation(workdir, 0)
    for name in ("psnr", "train_psnr"):
        assert after[name] == pytest.approx(before[name], abs=0.01)
    assert after["ssim"] == pytest.approx(before["ssim"], abs=1e-4)
    assert after["alive"] == before["alive"] == POINTS
    assert main(["train", "--config", recipe, "--workdir", str(workdir)]) == 0
    assert CheckpointReader(workdir).latest() == 12
    assert json.loads((workdir / "eval" / "12.json").read_text())["psnr"] > before["psnr"]
    # A second import would bury the run.
    assert main(["import", "splats", "--from", str(exported), *arguments]) == 2


def test_the_exported_world_is_that_of_the_data_set(trained, exported, scene, tmp_path):
    """Projected by the cameras of the COLMAP files, means lie where the trainer draws them."""
    path = tmp_path / "normalized.ply"
    arguments = ["--workdir", str(trained), "--output", str(path), "--normalized"]
    assert main(["export", *arguments]) == 0
    original, normalized = read_cloud(exported), read_cloud(path)
    program, _, _ = reopened(trained)
    loaded = program.task.scene

    def pixels(means: np.ndarray, pose: np.ndarray, fx: float, cx: float) -> np.ndarray:
        points = means @ pose[:3, :3].T + pose[:3, 3]
        return fx * points[:, 0] / points[:, 2] + cx

    view = read_capture(scene).views[3]
    fx, _, cx, _ = view.camera.pinhole
    number = loaded.names.index(view.name)
    np.testing.assert_allclose(
        pixels(original.means, view.world_to_camera, fx, cx),
        pixels(normalized.means, loaded.world_to_camera[number], fx, cx),
        rtol=1e-4,
        atol=2e-3,
    )
    ratio = np.exp(normalized.log_scales - original.log_scales)
    scale = np.cbrt(np.linalg.det(loaded.normalization[:3, :3]))
    np.testing.assert_allclose(ratio, scale, rtol=1e-4)
    assert scale < 0.9  # or the test would prove nothing


def test_dead_and_non_finite_gaussians_are_left_out_and_counted(trained):
    program, state, _ = reopened(trained)
    gaussians = state.params["gaussians"]
    broken = gaussians | {"means": gaussians["means"].at[7, 1].set(np.nan)}
    alive = state.model_state.alive.at[:3].set(False)
    state = replace(
        state, params={"gaussians": broken}, model_state=replace(state.model_state, alive=alive)
    )
    cleaned = trained_cloud(program.task, state)
    assert len(cleaned.cloud) == POINTS - 4
    assert (cleaned.dead, cleaned.non_finite) == (program.task.sizes.capacity - POINTS + 3, 1)


def test_harmonics_that_are_not_in_use_yet_are_not_written(trained):
    program, state, _ = reopened(trained)
    assert trained_cloud(program.task, state).cloud.degree == 1
    early = replace(state, step=jax.numpy.int32(3))
    assert trained_cloud(program.task, early).cloud.degree == 0


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_can_be_read_again(trained, tmp_path, suffix):
    path = tmp_path / f"scene{suffix}"
    name = suffix.removeprefix(".")
    assert main(["export", "--workdir", str(trained), "--format", name, "--output", str(path)]) == 0
    assert len(read_cloud(path)) == POINTS
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_version_4_of_spz_is_written_on_request(trained, tmp_path):
    pytest.importorskip("zstandard", reason="zstandard is not installed (extra spz)")
    path = tmp_path / "scene.spz"
    arguments = ["--workdir", str(trained), "--output", str(path), "--spz-version", "4"]
    assert main(["export", *arguments]) == 0
    assert path.read_bytes()[:8] == b"NGSP\4\0\0\0" and len(read_cloud(path)) == POINTS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "a.obj"], "the ending of a.obj"),
        (["--output", "a.ply", "--format", "spz"], "ends in .spz"),
        (["--output", "a.ply", "--format", "usd"], "'usd'"),
        (["--output", "a.ply", "--spz-version", "4"], "--spz-version is for .spz files"),
        (["--output", "a.spz", "--spz-version", "2"], "version 2 of .spz"),
    ],
)
def test_an_export_to_a_wrong_format_is_refused_by_name(trained, options, said, capsys):
    assert main(["export", "--workdir", str(trained), *options]) == 2
    assert said in capsys.readouterr().err


def renamed(exported: Path, target: Path, change) -> Path:
    """A copy of a PLY file whose table `change` has edited."""
    write_ply(target, change(read_ply(exported)))
    return target


def with_column(tables: dict, name: str) -> dict:
    vertex = tables["vertex"]
    table = np.zeros(len(vertex), [*vertex.dtype.descr, (name, "<f4")])
    for known in vertex.dtype.names:
        table[known] = vertex[known]
    return {"vertex": table}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tables: with_column(tables, "reflectance"), "reflectance"),
        (lambda tables: tables | {"face": np.zeros(1, [("a", "<i4")])}, "element face"),
        (lambda tables: {"vertex": tables["vertex"][["x", "y", "z"]]}, "lacks the properties"),
    ],
)
def test_a_file_of_which_a_part_would_be_ignored_or_missing_is_refused(
    exported, tmp_path, change, said
):
    path = renamed(exported, tmp_path / "other.ply", change)
    with pytest.raises(InputError, match=said):
        read_inria_ply(path, strict=True)


@pytest.mark.parametrize(
    ("options", "cloud", "said"),
    [
        ([], random_cloud(40, degree=3), "config.model.sh_degree"),
        ([], random_cloud(600, degree=0), "config.model.cap_max"),
    ],
)
def test_an_import_that_does_not_fit_the_config_names_the_key(
    recipe, tmp_path, options, cloud, said, capsys
):
    write_cloud(tmp_path / "a.ply", cloud)
    arguments = ["--workdir", str(tmp_path / "run"), "--config", recipe, *options]
    assert main(["import", "splats", "--from", str(tmp_path / "a.ply"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not CheckpointReader(tmp_path / "run").steps()


def test_a_compressed_file_is_not_imported(exported, recipe, tmp_path, capsys):
    path = tmp_path / "a.compressed.ply"
    write_cloud(path, read_cloud(exported))
    arguments = ["--workdir", str(tmp_path / "run"), "--config", recipe]
    assert main(["import", "splats", "--from", str(path), *arguments]) == 2
    assert "not compressed" in capsys.readouterr().err


def test_a_checkpoint_of_another_world_is_refused(trained, scene, tmp_path, capsys):
    """The same names, with cameras that were reconstructed again."""
    run, moved = tmp_path / "run", tmp_path / "scene"
    shutil.copytree(trained, run)
    size = SyntheticConfig(views=10, width=WIDTH, height=HEIGHT, points=POINTS, seed=3, samples=1)
    write_scene(moved, size)
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace(str(scene), str(moved)))
    assert main(["evaluate", "--workdir", str(run)]) == 2
    assert "normalized world is another one" in capsys.readouterr().err


def frames(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))]


def test_rendered_views_of_the_scene_are_those_of_evaluation(trained, scene, tmp_path):
    """From the folder and from JSON, in the data set's world: the same picture as `evaluate`."""
    arguments = ["--workdir", str(trained), "--input", str(scene)]
    assert main(["predict", *arguments, "--output", str(tmp_path / "folder")]) == 0
    drawn = frames(tmp_path / "folder")
    program, state, _ = reopened(trained)
    render_view = view_renderer(program.task, state)
    assert len(drawn) == 10 and drawn[0].shape == (HEIGHT, WIDTH, 3)
    for number in (0, 7):
        expected = 255 * np.clip(render_view(number), 0, 1)
        assert np.abs(drawn[number] - expected).max() < 1.5
    whole = path_of_capture(read_capture(scene))
    one = CameraPath(whole.world_to_camera[7:8], whole.intrinsics[7:8], whole.width, whole.height)
    write_path(tmp_path / "path.json", one)
    arguments = ["--workdir", str(trained), "--input", str(tmp_path / "path.json")]
    assert main(["predict", *arguments, "--output", str(tmp_path / "json")]) == 0
    np.testing.assert_array_equal(frames(tmp_path / "json")[0], drawn[7])


def test_an_orbit_circles_what_the_views_look_at_and_shows_it(trained, tmp_path):
    arguments = ["--workdir", str(trained), "--input", "orbit:3", "--output", str(tmp_path / "o")]
    assert main(["predict", *arguments]) == 0
    drawn = frames(tmp_path / "o")
    assert len(drawn) == 3 and all(frame.std() > 10 for frame in drawn)
    program, _, _ = reopened(trained)
    scene = program.task.scene
    path = orbit_of_scene(scene, 8)
    poses = scene.world_to_camera.astype(np.float64)
    focus = common_point(camera_centers(poses), poses[:, 2, :3])
    distance = np.linalg.norm(camera_centers(path.world_to_camera) - focus, axis=1)
    np.testing.assert_allclose(distance, distance[0])
    known = np.linalg.norm(camera_centers(poses) - focus, axis=1)
    assert known.min() * 0.9 < distance[0] < known.max() * 1.1


def test_a_path_shrinks_like_photographs():
    path = CameraPath(np.eye(4)[None], np.array([[100.0, 90, 50.5, 30]]), 101, 60)
    small = shrunk(path, 4)
    assert (small.width, small.height) == (25, 15)
    ratio = np.array([25 / 101, 15 / 60] * 2)
    np.testing.assert_allclose(small.intrinsics[0], path.intrinsics[0] * ratio)


def test_a_video_has_the_frames_of_the_path(trained, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    video = tmp_path / "video.mp4"
    arguments = ["--workdir", str(trained), "--input", "orbit:5", "--output", str(video)]
    assert main(["predict", *arguments]) == 0
    count, _ = ffmpeg.count_frames_and_secs(str(video))
    assert count == 5


def test_a_video_that_cannot_be_written_gives_the_encoders_reason(trained, tmp_path, capsys):
    pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "video.mp4").mkdir()
    arguments = ["--workdir", str(trained), "--input", "orbit:2"]
    assert main(["predict", *arguments, "--output", str(tmp_path / "video.mp4")]) == 2
    assert "cannot be written (" in capsys.readouterr().err


def test_a_video_without_its_package_says_what_to_install(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    video = tmp_path / "video.mp4"
    arguments = ["--workdir", str(trained), "--input", "orbit", "--output", str(video)]
    assert main(["predict", *arguments]) == 2
    assert "podvision[video]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["orbit:0", "path:x", "orbit:³", "path:1000000000", "nowhere.json"]
)
def test_an_input_that_is_no_path_is_refused(trained, tmp_path, text, capsys):
    arguments = ["--workdir", str(trained), "--input", text, "--output", str(tmp_path / "o")]
    assert main(["predict", *arguments]) == 2
    assert "--input" in capsys.readouterr().err

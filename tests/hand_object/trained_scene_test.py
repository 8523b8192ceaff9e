"""Fields become meshes that move as the pose tables say; every format takes them.

Untrained fields are balls of a known radius, so that sizes and places are closed forms.
"""

from __future__ import annotations

import argparse
import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from hand_object import export
from hand_object.config import Config, SequenceConfig, preset
from hand_object.render.scene import init_scene
from hand_object.task import HandObjectTask, Video
from hand_object.trained_scene import rest_weights, shades, trained_scene
from training.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def task(made_folder) -> HandObjectTask:
    sequence = SequenceConfig(path=str(made_folder), hold_out=3)
    config = Config("hand_object", sequence=sequence, model=preset("smoke"))
    return HandObjectTask(config, Video(sequence))


@pytest.fixture(scope="module")
def params(task):
    made = init_scene(jax.random.key(0), task.config.model, hands={"right": 45}, frames=6)
    return made | {"poses": task.start_poses}


@pytest.fixture(scope="module")
def found(task, params):
    return trained_scene(task, params, 32)


def test_the_object_is_a_ball_where_its_poses_put_it(found, truth, task):
    thing = task.opened.sequence.object
    wanted = task.config.model.sdf.radius * thing.radius * thing.scale
    sizes = np.linalg.norm(found.object.mesh.vertices - thing.center, axis=1)
    # The start is a ball but for the network's last layer; see the test of the SDF network.
    np.testing.assert_allclose(sizes.mean(), wanted, rtol=0.15)
    np.testing.assert_allclose(found.object.to_world, truth.object.to_world, atol=1e-5)
    assert found.object.mesh.colors.shape == found.object.mesh.vertices.shape


def test_the_hand_moves_with_its_joints(found, truth):
    hand = found.hands["right"]
    np.testing.assert_allclose(hand.joints, truth.hands["right"].joints, atol=1e-5)
    np.testing.assert_allclose(hand.transforms, truth.hands["right"].transforms, atol=1e-5)
    assert hand.mesh.colors.dtype == np.uint8
    np.testing.assert_allclose(hand.weights.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["capsules", "vertices"])
def test_skin_at_rest_moves_with_the_nearest_bone(task, kind):
    """Points of a finger tip belong to the last joint of the finger, by both rules."""
    statics = task.video.statics.hands["right"]
    model = task.config.model
    model = dataclasses.replace(model, skinning=dataclasses.replace(model.skinning, kind=kind))
    tips = np.asarray(statics.model.tips)
    owner = np.argmax(rest_weights(tips, statics, model), axis=1)
    assert list(owner) == [statics.model.order[3 + 3 * finger] for finger in range(5)]


def test_colors_are_shaded_in_frames_that_are_there():
    assert shades(np.array([False, True, False, True])) == [1, 3]
    assert len(shades(np.ones(100, bool))) == 6
    assert shades(np.zeros(3, bool)) == [0]


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def run(monkeypatch, found, task):
    """Exports what was found already."""
    monkeypatch.setattr("hand_object.trained_scene.trained_scene", lambda *rest: found)

    def start(*words: str) -> list[str]:
        args = arguments(*words)
        export.check_arguments(args)
        return export.export(SimpleNamespace(task=task), SimpleNamespace(params={}), 7, args)

    return start


@pytest.mark.parametrize("name", ["html", "glb", "npz"])
def test_a_file_of_each_format(run, tmp_path, name):
    target = tmp_path / "new" / f"scene.{name}"
    lines = run("--format", name, "--output", str(target), "--rate", "24")
    assert target.stat().st_size > 10_000
    assert "step 7" in lines[0] and "triangles" in lines[0] and str(target) in lines[1]
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert ("4 joints a vertex" in lines[1]) == (name == "glb")


def test_meshes_of_rest_and_of_each_frame(run, tmp_path):
    run("--format", "ply", "--output", str(tmp_path / "rest"))
    assert {p.name for p in (tmp_path / "rest").iterdir()} == {"right_rest.ply", "object.ply"}
    (line,) = run("--format", "obj", "--output", str(tmp_path / "all"), "--posed")[1:]
    assert len(list((tmp_path / "all" / "posed").iterdir())) == 12 and "14 meshes" in line


def test_a_video_has_all_frames(run, tmp_path):
    reader = pytest.importorskip("imageio_ffmpeg")
    run("--format", "mp4", "--output", str(tmp_path / "a.mp4"))
    frames = reader.read_frames(str(tmp_path / "a.mp4"))
    assert next(frames)["size"] == (3 * 64, 48)
    assert sum(1 for _ in frames) == 6


@pytest.mark.parametrize(
    "words, said",
    [
        (["--output", "a.glb"], "ends in .html"),
        (["--format", "glb", "--output", "a.glb", "--posed"], "every frame anyway"),
        (["--output", "a.html", "--resolution", "4"], "16 to 512"),
        (["--output", "a.html", "--rate", "0"], "above 0"),
        (["--format", "ply", "--output", __file__], "needs a folder"),
    ],
)
def test_wrong_arguments_are_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        export.check_arguments(arguments(*words))


def test_an_output_that_cannot_be_written_is_said(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run("--format", "npz", "--output", str(tmp_path / "file" / "a.npz"))


def test_a_field_without_a_surface_is_said(task, params):
    node = params["nodes"]["object"]
    layers = node["sdf"]["layers"]
    last = max(layers, key=int)
    raised = layers | {last: layers[last] | {"bias": layers[last]["bias"] + 10.0}}
    nodes = params["nodes"] | {"object": node | {"sdf": node["sdf"] | {"layers": raised}}}
    with pytest.raises(InputError, match="the object has no surface"):
        trained_scene(task, params | {"nodes": nodes}, 16)

"""Each fault of a preparation is found, in a sentence and with a picture."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import pytest

from hand_object import prepare
from hand_object.data.checks import check_sequence, refuse_red
from hand_object.data.hold_build import read_hold_build
from hand_object.hands.model import mirrored_pose
from hand_object.hands.sources import load_hand
from hand_object.synthetic import Scene, make_sequence
from training.errors import InputError

SCENE = Scene(frames=4, size=(48, 64), side="left", object="box", turns=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("made")
    make_sequence(SCENE, made)
    return made


@pytest.fixture(scope="module")
def sequence(folder):
    return read_hold_build(folder)


@pytest.fixture(scope="module")
def models():
    return {"left": load_hand("parametric", "left")}


def with_hand(sequence, **change):
    return dataclasses.replace(
        sequence, hands={"left": dataclasses.replace(sequence.hands["left"], **change)}
    )


def with_object(sequence, **change):
    return dataclasses.replace(sequence, object=dataclasses.replace(sequence.object, **change))


def wide(sequence):
    return dataclasses.replace(sequence, intrinsics=sequence.intrinsics * np.float32(20))


def turned(sequence):
    """OpenGL's camera taken for OpenCV's."""
    flip = np.diag([1, -1, -1, 1]).astype(np.float32)
    return dataclasses.replace(sequence, world_to_camera=flip @ sequence.world_to_camera)


RED = {
    "outside of the sphere": lambda s: dataclasses.replace(s, sphere=1.5),
    "at the center of the sphere": lambda s: dataclasses.replace(
        s, world_to_camera=s.world_to_camera * np.array([1, 1, 1, 0.01], np.float32)
    ),
    "do not fit pictures of 64 x 48": wide,
    "which no hand holds": lambda s: with_object(s, scale=100.0),
    "bend over its back": lambda s: with_hand(s, pose=_bent_back(s)),
    "project into its mask": turned,
    "no pose in 4 of 4": lambda s: with_hand(s, valid=np.zeros(4, bool)),
    "masks of right are empty": lambda s: dataclasses.replace(s, hands={"right": s.hands["left"]}),
}


def _bent_back(sequence):
    pose = sequence.hands["left"].pose.copy()
    back = mirrored_pose(pose[:, 1:13])
    pose[:, 1:13] = 0.5 * back / np.linalg.norm(back, axis=-1, keepdims=True)
    return pose


def test_a_sound_sequence_has_no_red_finding(sequence, models):
    findings = check_sequence(sequence, models)
    assert {finding.level for finding in findings} == {"green"}
    refuse_red(findings)


@pytest.mark.parametrize("sentence", RED)
def test_a_fault_is_red_with_a_sentence_and_a_picture(sequence, models, sentence):
    findings = check_sequence(RED[sentence](sequence), models)
    named = [f for f in findings if sentence in f.sentence]
    assert named and {f.level for f in named} == {"red"}, [f.sentence for f in findings]
    assert named[0].picture is not None and named[0].picture.shape == (48, 64, 3)
    with pytest.raises(InputError):
        refuse_red(findings)


def test_a_few_lost_frames_and_a_jump_are_yellow(sequence, models):
    lost = with_hand(sequence, valid=np.arange(4) != 2)
    moved = sequence.hands["left"].translation.copy()
    moved[2:] += 0.5
    jump = with_hand(sequence, translation=moved)
    for changed, sentence in ((lost, "no pose in 1 of 4"), (jump, "jumps by")):
        found = [f for f in check_sequence(changed, models) if sentence in f.sentence]
        assert [f.level for f in found] == ["yellow"]


def test_poses_of_another_model_are_refused(sequence, models):
    other = with_hand(sequence, pose=sequence.hands["left"].pose[:, :15])
    with pytest.raises(InputError, match="15 joints but hand model parametric has 16"):
        refuse_red(check_sequence(other, models))


def test_the_recorded_grasp_is_sound(data_root):
    folder = data_root / "hand_object"
    if not (folder / "hold_like_mouse").is_dir():
        pytest.skip(f"no hold_like_mouse in {folder}")
    recorded = read_hold_build(folder / "hold_like_mouse")
    model = load_hand(str(folder / "hand_models/umetrack_P0002_right.npz"))
    levels = {f.name: f.level for f in check_sequence(recorded, {"right": model})}
    assert "red" not in levels.values(), levels


def test_the_command_finds_the_hand_model_that_the_sequence_names(data_root, capsys):
    folder = data_root / "hand_object"
    if not (folder / "hold_like_mouse").is_dir():
        pytest.skip(f"no hold_like_mouse in {folder}")
    assert prepare.run(arguments("--input", str(folder / "hold_like_mouse"))) == 0
    assert "of the right hand project into its mask" in capsys.readouterr().out


def arguments(*words):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_prints_findings_and_refuses(folder, tmp_path, capsys, monkeypatch):
    assert prepare.run(arguments("--input", str(folder))) == 0
    assert "green" in capsys.readouterr().out
    monkeypatch.setattr("hand_object.data.checks.OBJECT_SIZE", (0.5, 0.6))
    words = ["--input", str(folder), "--output", str(tmp_path)]
    with pytest.raises(InputError, match="no hand holds"):
        prepare.run(arguments(*words))
    assert (tmp_path / "object_size.png").is_file()
    assert prepare.run(arguments(*words, "--force")) == 0

"""Sequences as other people have them are read as they are meant, or refused with the reason.

What is read says how; what is refused names what is wrong, where, and what to do.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hand_object.config import SequenceConfig
from hand_object.data.finding import refuse_red
from hand_object.data.sequence import BACKGROUND, LEFT, OBJECT, RIGHT, UNKNOWN
from hand_object.data.sequence_access import check_folder
from hand_object.synthetic import make_sequence
from tests.hand_object.data import awkward as a
from training.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compilation")
LOST = [float("nan"), 0.0]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    make_sequence(a.SCENE, folder)
    return folder


@pytest.fixture
def changed(plain, tmp_path):
    def make(change, name="sequence") -> Path:
        folder = tmp_path / name
        shutil.copytree(plain, folder)
        change(folder / "build")
        return folder

    return make


def checked(folder: Path, **settings):
    return check_folder(folder, SequenceConfig(str(folder), **settings))


def levels(found, level: str) -> list[str]:
    return [finding.name for finding in found.findings if finding.level == level]


def without(name: str):
    return a.edited(lambda data: data["entities"].pop(name))


# What is read, and what it must say beside the green findings.
READ = {
    "gray frames": (a.each("image", a.gray), []),
    "frames with alpha": (a.each("image", a.translucent), []),
    "frames of 16 bits": (a.each("image", a.sixteen_bits), []),
    "masks half as large": (a.each("mask", a.resized(32, 24)), []),
    "masks of three channels": (a.each("mask", lambda picture: picture.convert("RGB")), []),
    "masks by a gray palette": (a.each("mask", a.palette_of_levels), []),
    "portrait": (a.portrait, []),
    "cameras in OpenGL's axes": (a.edited(a.opengl_cameras), []),
    "no hand": (without("right"), []),
    "no object": (without("object"), []),
    "some masks missing": (a.without_masks(1, 4), ["missing masks"]),
    "no masks": (
        a.without_masks(*range(a.SCENE.frames)),
        ["masks", "projection of the object", "projection of the right hand"],
    ),
    "hand lost in two frames (NaN)": (
        a.hand_poses(float("nan"), [1, 2]),
        ["frames with the right hand"],
    ),
    "hand lost in two frames (zeros)": (
        a.hand_poses(0.0, [1, 2]),
        ["frames with the right hand"],
    ),
    "a NaN in a pose of the hand": (
        a.spoiled("right", "hand_poses", 2),
        ["frames with the right hand"],
    ),
    "a NaN in a pose of the object": (
        a.spoiled("object", "object_poses", 2),
        ["frames with the object"],
    ),
}


@pytest.mark.parametrize("name", READ)
def test_what_can_be_read_is_read_and_said(changed, name):
    change, yellow = READ[name]
    found = checked(changed(change))
    assert levels(found, "red") == [], [finding.sentence for finding in found.findings]
    assert levels(found, "yellow") == yellow
    for finding in found.findings:
        if finding.level == "yellow" and "no frame has both" not in finding.sentence:
            assert finding.picture is not None


# What a reader or a check must say.
REFUSED = {
    r"mask .*0000\.png has colors; write gray levels": a.each("mask", a.numbered),
    r"mask .*0000\.png is 48 x 48, which is another shape .* 64 x 48; make masks of the same": (
        a.each("mask", a.resized(48, 48))
    ),
    r"they look like those of 63 x 47; give those of this picture size": (
        a.each("image", a.resized(32, 24))
    ),
    r"focal 563, 563, .* do not fit pictures of 64 x 48": a.edited(a.wrong_intrinsics),
    r"6 cameras but .* has 5 frames \(0003\.png is missing\); extract": a.without_frame(3),
    r"right\.hand_poses has 5 frames, the sequence needs 6 frames; give each frame a row": (
        a.edited(
            lambda data: data["entities"]["right"].update(
                hand_poses=data["entities"]["right"]["hand_poses"][:5]
            )
        )
    ),
    r"right hand has no pose in 6 of 6 frames.*leave entities\.right out": (
        a.hand_poses(float("nan"), slice(None))
    ),
    r"the object has no pose in 4 of 6 frames, .*structure from motion has lost it": (
        a.edited(lambda data: data["entities"]["object"]["object_poses"][1:5].fill(np.nan))
    ),
    r"neither a hand nor an object; give entities": (
        a.edited(lambda data: data["entities"].clear())
    ),
    r"behind the cameras in OpenCV's axes, .*config\.sequence\.camera": a.edited(a.cameras_behind),
    r"look like millimeters; divide": a.edited(a.millimeters),
    r"outside of the sphere of 6; lower its scale": a.edited(a.camera_far),
    r"world_mat_2 is no finite 4 x 4 matrix; interpolate": (
        a.edited(lambda data: data["cameras"]["world_mat_2"].__setitem__((0, 0), np.nan))
    ),
    r"mean_shape is not finite": (
        a.edited(lambda data: data["entities"]["right"].update(mean_shape=np.full(10, np.nan)))
    ),
    r"not HOLD's dictionary": lambda build: a.write_data(build, [1, 2]),
    r"0002\.png is no readable picture": a.truncated,
    r"mask_0000\.png and all 6 masks have names that no frame has, such as 0000": a.renamed_masks,
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_read_is_refused_with_what_to_do(changed, sentence):
    folder = changed(REFUSED[sentence])
    with pytest.raises(InputError, match=sentence):
        refuse_red(checked(folder).findings)


def test_a_malicious_pickle_is_refused_and_nothing_is_executed(changed):
    folder = changed(a.malicious)
    with pytest.raises(InputError, match="is refused: it asks for pathlib"):
        checked(folder)
    assert not (folder / "build/executed").exists()
    # The same bytes do what they ask for where nobody restricts them.
    np.load(folder / "build/data.npy", allow_pickle=True)
    assert (folder / "build/executed").read_text() == "executed"


def test_a_path_may_have_any_letters(changed):
    folder = changed(lambda build: None, "séquence Übung 手")
    assert levels(checked(folder), "red") == []


def test_opengl_cameras_become_the_opencv_ones(changed, plain):
    wanted = checked(plain).sequence
    folder = changed(a.edited(a.opengl_cameras))
    for camera in ("auto", "opengl"):
        found = checked(folder, camera=camera).sequence
        np.testing.assert_allclose(found.world_to_camera, wanted.world_to_camera, atol=1e-6)
        np.testing.assert_allclose(found.intrinsics, wanted.intrinsics, atol=1e-4)
    said = checked(folder).findings[0]
    assert said.name == "camera axes" and "OpenGL" in said.sentence
    forced = checked(folder, camera="opencv")
    assert "projection of the right hand" in levels(forced, "red")


def test_sixteen_bits_are_brightness_and_not_white(changed, plain):
    own, deep = checked(plain).sequence, checked(changed(a.each("image", a.sixteen_bits))).sequence
    gray = np.asarray(a.Image.fromarray(own.image(0)).convert("L"))
    np.testing.assert_array_equal(deep.image(0), np.repeat(gray[..., None], 3, axis=2))


def test_palettes_and_halves_show_the_same_nodes(changed, plain):
    own = checked(plain).sequence.mask(0)
    assert set(np.unique(own)) == {BACKGROUND, OBJECT, RIGHT}
    np.testing.assert_array_equal(
        checked(changed(a.each("mask", a.palette_of_levels), "palette")).sequence.mask(0), own
    )
    half = checked(changed(a.each("mask", a.resized(32, 24)), "half")).sequence.mask(0)
    assert half.shape == own.shape
    assert (half == own).mean() > 0.9  # a pixel at the outlines


@pytest.mark.parametrize("value", LOST)
def test_frames_without_a_hand_have_none(changed, value):
    found = checked(changed(a.hand_poses(value, [1, 2]))).sequence
    assert found.hands["right"].valid.tolist() == [True, False, False, True, True, True]


def test_frames_without_a_mask_are_unknown(changed):
    found = checked(changed(a.without_masks(1, 4))).sequence
    assert (found.mask(1) == UNKNOWN).all() and (found.mask(0) != UNKNOWN).all()


def test_both_hands_and_a_left_hand_alone_are_sound(changed, tmp_path):
    both = checked(changed(lambda build: a.second_hand(build, tmp_path / "other"), "both"))
    assert levels(both, "red") == levels(both, "yellow") == []
    assert set(np.unique(both.sequence.mask(0))) == {BACKGROUND, OBJECT, RIGHT, LEFT}
    alone = checked(changed(lambda build: _only_left(build, tmp_path / "left"), "alone"))
    assert list(alone.sequence.hands) == ["left"] and levels(alone, "red") == []


def _only_left(build: Path, other: Path) -> None:
    a.second_hand(build, other)
    without("right")(build)


def test_a_hand_of_meshes_has_the_poses_that_they_were_made_by(changed, plain):
    wanted = checked(plain).sequence.hands["right"]
    folder = changed(a.meshes_only)
    found = checked(folder)
    assert levels(found, "red") == [] and levels(found, "yellow") == ["frames with the right hand"]
    assert "of the meshes of the right hand (mean over vertices" in found.findings[0].sentence
    track, there = found.sequence.hands["right"], np.arange(a.SCENE.frames) != 2
    np.testing.assert_array_equal(track.valid, there)
    np.testing.assert_allclose(track.pose[there], wanted.pose[there], atol=1e-3)
    np.testing.assert_allclose(track.translation[there], wanted.translation[there], atol=1e-5)


def test_a_hand_of_meshes_in_another_order_is_refused(changed):
    def shuffled(build):
        a.meshes_only(build)
        data = a.data_of(build)
        hand = data["entities"]["right"]
        hand["hand_vertices"] = hand["hand_vertices"][:, ::-1]
        a.write_data(build, data)

    with pytest.raises(InputError, match=r"does not get nearer than .* mm .* in another order"):
        refuse_red(checked(changed(shuffled)).findings)

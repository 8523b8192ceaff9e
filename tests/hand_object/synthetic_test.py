"""Made sequences: exact, the same each time, read back as they were made."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hand_object.data.hold_build import read_hold_build
from hand_object.data.rasterizer import draw
from hand_object.data.sequence import LEFT, OBJECT, RIGHT
from hand_object.data.solids import SOLIDS, read_obj, solid
from hand_object.hands.chirality import curl
from hand_object.hands.mesh import boundary_loops, signed_volume
from hand_object.metrics.closed_surface import ClosedSurface
from hand_object.synthetic import Scene, make_sequence
from training.errors import ConfigError, InputError

SMALL = Scene(frames=3, size=(36, 48))


@pytest.fixture(scope="module", params=["right", "left"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    scene = dataclasses.replace(SMALL, side=request.param)
    return scene, folder, make_sequence(scene, folder)


def test_what_is_read_is_what_was_made(made):
    scene, folder, truth = made
    sequence = read_hold_build(folder)
    assert (len(sequence), sequence.size, set(sequence.hands)) == (3, (36, 48), {scene.side})
    hand, thing = sequence.hands[scene.side], sequence.object
    np.testing.assert_allclose(hand.pose, truth["hand_pose_axis_angle"], atol=1e-6)
    np.testing.assert_allclose(hand.translation, truth["hand_trans"], atol=1e-6)
    np.testing.assert_allclose(sequence.world_to_camera, truth["world_to_camera"], atol=1e-6)
    assert thing is not None
    np.testing.assert_allclose(thing.translation, truth["object_to_world"][:, :3, 3], atol=1e-6)
    camera = np.linalg.norm(sequence.camera_centers(), axis=1) * sequence.scene_scale
    np.testing.assert_allclose(camera, 2.0, rtol=1e-5)


def test_masks_show_both_and_lie_where_the_vertices_project(made):
    scene, folder, truth = made
    sequence = read_hold_build(folder)
    hand_class = RIGHT if scene.side == "right" else LEFT
    for frame in range(len(sequence)):
        mask = sequence.mask(frame)
        assert set(np.unique(mask)) == {0, OBJECT, hand_class}
        camera = truth["world_to_camera"][frame]
        local = truth["hand_vertices"][frame] @ camera[:3, :3].T + camera[:3, 3]
        pixels = np.rint((local @ truth["K"].T)[:, :2] / local[:, 2:]).astype(int)
        inside = np.all((pixels >= 0) & (pixels < [48, 36]), axis=1)
        x, y = pixels[inside].T
        assert (mask[y, x] > 0).mean() > 0.85


def test_fingers_close_to_contact_and_not_through(made):
    scene, _, truth = made
    assert curl(truth["hand_joints"], scene.side).min() > 0.3
    pose = truth["object_to_world"][0]
    vertices = truth["object_vertices"] @ pose[:3, :3].T + pose[:3, 3]
    ask = ClosedSurface(vertices, truth["object_faces"])
    distance = ask(truth["hand_vertices"][0].astype(float))
    assert -0.003 < distance.min() < 0.003
    assert np.sum(distance < 0.005) > 20


def test_the_same_scene_gives_the_same_bytes(made, tmp_path):
    scene, folder, _ = made
    make_sequence(scene, tmp_path)
    for path in [*sorted(folder.rglob("*.png")), folder / "build/data.npy"]:
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path


def test_noise_and_lost_frames_are_in_the_data_and_not_in_the_truth(made, tmp_path):
    scene, _, truth = made
    noisy = dataclasses.replace(scene, pose_noise=0.05, shift_noise=0.005, missing=0.34)
    again = make_sequence(noisy, tmp_path)
    np.testing.assert_array_equal(again["hand_vertices"], truth["hand_vertices"])
    hand = read_hold_build(tmp_path).hands[scene.side]
    assert hand.valid.sum() == 2
    error = np.abs(hand.translation - truth["hand_trans"])[hand.valid]
    assert 1e-4 < error.max() < 0.03


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_closed_and_face_outward(name):
    vertices, faces = solid(name)
    assert signed_volume(vertices, faces) > 1e-5
    assert not boundary_loops(faces)
    assert 0.02 < np.ptp(vertices, axis=0).max() < 0.3


def test_unknown_objects_and_broken_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="bottle"):
        solid("teapot")
    with pytest.raises(InputError, match="there is no object"):
        solid(str(tmp_path / "none.obj"))
    (tmp_path / "points.obj").write_text("v 0 0 0\n")
    with pytest.raises(InputError, match="no triangles"):
        read_obj(tmp_path / "points.obj")


def test_the_nearer_triangle_is_seen_at_its_own_depth():
    """A slanted plane z = 1 + x / 2 before a wall at z = 2, as a ray meets them."""
    k = np.array([[20.0, 0, 7.5], [0, 20, 7.5], [0, 0, 1]])
    corners = np.array([[-0.2, -0.2], [0.2, -0.2], [0.2, 0.2], [-0.2, 0.2]])
    plane = np.concatenate([corners, 1 + corners[:, :1] / 2], axis=1)
    wall = np.concatenate([corners * 10, np.full((4, 1), 2.0)], axis=1)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    seen = draw([(wall, faces), (plane, faces)], k, np.eye(4), (16, 16))
    x = (np.arange(16) - 7.5) / 20
    wanted = 1 / (1 - x / 2)
    here = seen.mesh == 1
    assert 30 < here.sum() < 100
    np.testing.assert_allclose(seen.depth[here], np.tile(wanted, (16, 1))[here], rtol=1e-9)
    np.testing.assert_allclose(seen.depth[~here], 2.0)


def test_what_is_behind_the_camera_is_not_drawn():
    triangle = np.array([[-1.0, -1, -2], [1, -1, -2], [0, 1, -2]])
    k = np.array([[20.0, 0, 7.5], [0, 20, 7.5], [0, 0, 1]])
    seen = draw([(triangle, np.array([[0, 1, 2]]))], k, np.eye(4), (16, 16))
    assert (seen.mesh == -1).all() and np.isinf(seen.depth).all()

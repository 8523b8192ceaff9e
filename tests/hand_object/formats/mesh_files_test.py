"""Meshes and motion read back as they were written."""

from __future__ import annotations

import numpy as np

from hand_object.data.solids import read_obj
from hand_object.formats.mesh_files import write_obj, write_ply
from hand_object.formats.trajectories import write_npz
from hand_object.meshing import Mesh

SHEET = Mesh(
    np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.2, 0], [0.1, 0.2, 0.3]]),
    np.array([[0, 1, 2], [2, 1, 3]], np.int32),
    np.array([[0, 0, 0], [255, 0, 0], [0, 128, 0], [1, 2, 255]], np.uint8),
)


def test_obj_is_read_back(tmp_path):
    write_obj(tmp_path / "a.obj", SHEET)
    vertices, faces = read_obj(tmp_path / "a.obj")
    np.testing.assert_allclose(
        np.sort(vertices[faces], axis=0), np.sort(SHEET.vertices[SHEET.faces], axis=0), atol=1e-6
    )
    first = (tmp_path / "a.obj").read_text().splitlines()[1].split()
    assert [float(word) for word in first[1:]] == [0.1, 0, 0, 1, 0, 0]


def test_ply_has_the_bytes_that_its_header_promises(tmp_path):
    write_ply(tmp_path / "a.ply", SHEET)
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    assert b"element vertex 4\n" in header and b"element face 2\n" in header
    vertex = np.dtype([("place", "<f4", 3), ("color", "u1", 3)])
    face = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
    assert len(body) == 4 * vertex.itemsize + 2 * face.itemsize
    vertices = np.frombuffer(body, vertex, 4)
    np.testing.assert_allclose(vertices["place"], SHEET.vertices, atol=1e-7)
    np.testing.assert_array_equal(vertices["color"], SHEET.colors)
    faces = np.frombuffer(body[4 * vertex.itemsize :], face)
    np.testing.assert_array_equal(faces["corners"], SHEET.faces)
    assert set(faces["count"]) == {3}


def test_motion_is_named_and_needs_no_pickle(tmp_path, truth):
    write_npz(tmp_path / "a.npz", truth)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        held = dict(file)
    hand = truth.hands["right"]
    assert list(held["joint_names"][:5]) == ["wrist", "thumb_1", "thumb_2", "thumb_3", "thumb_tip"]
    np.testing.assert_allclose(held["right_joints"], hand.joints, atol=1e-6)
    np.testing.assert_allclose(held["right_vertices"][3], hand.vertices(3), atol=1e-6)
    thing = held["object_vertices"] @ held["object_to_world"][2, :3, :3].T
    thing = thing + held["object_to_world"][2, :3, 3]
    np.testing.assert_allclose(thing, truth.object.vertices(2), atol=1e-6)
    assert "Meters" in str(held["card"]) and len(held["right_tree"]) == 16

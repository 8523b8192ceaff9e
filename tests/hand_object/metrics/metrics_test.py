"""Figures equal their closed forms: shifted copies, spheres, polynomials of time."""

from __future__ import annotations

import numpy as np
import pytest

from hand_object.metrics import contact, hands, surfaces


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).uniform(-0.1, 0.1, (400, 3)) * [1, 0.6, 0.3]


def sphere(radius: float, center=(0.0, 0, 0)):
    return lambda x: np.linalg.norm(x - np.array(center), axis=-1) - radius


def octahedron(levels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere of triangles, faces outward."""
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    triangles = []
    for x in (0, 1):
        for y in (2, 3):
            for z in (4, 5):
                face = corners[[x, y, z]]
                triangles.append(face if np.linalg.det(face) > 0 else face[::-1])
    for _ in range(levels):
        split = []
        for a, b, c in triangles:
            ab, bc, ca = (v / np.linalg.norm(v) for v in (a + b, b + c, c + a))
            split += [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
        triangles = split
    vertices = np.array(triangles).reshape(-1, 3)
    return vertices, np.arange(len(vertices)).reshape(-1, 3)


def test_joint_errors_are_millimeters_relative_to_the_wrist():
    wanted = np.random.default_rng(1).normal(size=(4, 21, 3))
    assert hands.mpjpe(wanted + np.array([0.3, 0, 0]), wanted) == pytest.approx(0, abs=1e-9)
    assert hands.placed_mpjpe(wanted + np.array([0.3, 0, 0]), wanted) == pytest.approx(300)
    moved = wanted.copy()
    moved[:, 1:] += [0, 0.003, 0.004]
    assert hands.mpjpe(moved, wanted) == pytest.approx(5 * 20 / 21)
    moved[2:] = np.nan
    assert hands.mpjpe(moved, wanted, np.arange(4) < 2) == pytest.approx(5 * 20 / 21)
    assert np.isnan(hands.mpjpe(moved, wanted, np.zeros(4, bool)))


def test_jerk_and_jitter_are_derivatives_of_the_motion():
    time = np.arange(10) / 30.0
    cubic = np.stack([2 * time**3, time**2, time], axis=-1)[:, None]
    assert hands.jerk(cubic, 30.0) == pytest.approx(12)
    square = np.stack([0.5 * time**2, time, 0 * time], axis=-1)[:, None]
    assert hands.jitter(square) == pytest.approx(1 / 900)
    assert hands.jerk(square, 30.0) == pytest.approx(0, abs=1e-8)
    assert np.isnan(hands.jerk(cubic[:3], 30.0))


def test_frames_without_a_hand_do_not_shake_it():
    time = np.arange(12) / 30.0
    cubic = np.stack([2 * time**3, time**2, time], axis=-1)[:, None]
    lost = cubic.copy()
    lost[5] = 9.0
    valid = np.arange(12) != 5
    assert hands.jerk(lost, 30.0) > 1e3
    assert hands.jerk(lost, 30.0, valid) == pytest.approx(12)
    assert np.isnan(hands.jitter(lost, np.arange(12) % 2 == 0))


def test_a_tremble_is_seen_in_pixels():
    """A hand 0.5 m away that steps 1 mm to and fro, before a camera of 500 px: 1 px each way."""
    place = np.tile([0.0, 0, 0.5], (6, 21, 1))
    place[1::2, :, 0] += 0.001
    camera = np.tile(np.eye(4), (6, 1, 1))
    k = np.tile(np.array([[500.0, 0, 100], [0, 500, 80], [0, 0, 1]]), (6, 1, 1))
    pixels = hands.projected(place, k, camera)
    np.testing.assert_allclose(pixels[0, 0], [100, 80])
    assert hands.jitter(pixels) == pytest.approx(2.0)


def test_chamfer_of_shifted_sparse_points_is_twice_the_squared_shift():
    grid = np.stack(np.meshgrid(*[np.arange(5) * 0.05] * 3), axis=-1).reshape(-1, 3)
    found = surfaces.score(grid + np.array([0.007, 0, 0]), grid)
    assert found.chamfer == pytest.approx(2 * 0.49)
    assert (found.f5, found.f10) == (0.0, 100.0)
    half = surfaces.score(np.concatenate([grid, grid + np.array([0, 0, 5.0])]), grid)
    assert half.f5 == pytest.approx(200 * 0.5 / 1.5)


def test_registration_finds_a_similarity(points):
    angle = 1.9
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    moved = 1.3 * points @ turn.T + [0.2, -0.1, 0.4]
    fit = surfaces.similarity(points, moved)
    np.testing.assert_allclose(fit[:3, :3], 1.3 * turn, atol=1e-12)
    np.testing.assert_allclose(fit[:3, 3], [0.2, -0.1, 0.4], atol=1e-12)
    assert surfaces.score(moved, points).f10 < 50
    assert surfaces.score_registered(moved, points).chamfer < 1e-6


def test_registration_never_mirrors(points):
    fit = surfaces.similarity(points, points * [-1, 1, 1])
    assert np.linalg.det(fit[:3, :3]) > 0


def test_the_object_is_compared_relative_to_the_wrist(points):
    still = np.stack([points, points])
    wrist = np.zeros((2, 3))
    assert surfaces.hand_chamfer(still + 0.5, wrist + 0.5, still, wrist) < 1e-9
    shifted = surfaces.hand_chamfer(still, wrist + np.array([0, 0, 1.0]), still, wrist)
    assert shifted > 1e4


def test_samples_are_even_by_area():
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 5], [1, 0, 5], [0, 1, 5]], float)
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    samples = surfaces.sample_surface(vertices, faces, 4000)
    low = samples[samples[:, 2] == 0]
    assert len(low) / 4000 == pytest.approx(0.75, abs=0.03)
    np.testing.assert_allclose(low.mean(axis=0), [1, 1 / 3, 0], atol=0.05)
    np.testing.assert_array_equal(samples, surfaces.sample_surface(vertices, faces, 4000))


def test_penetration_of_two_balls_is_their_lens():
    vertices, _ = octahedron()
    hand = 0.03 * vertices
    deepest, mean = contact.penetration_depth(hand, sphere(0.03, (0.04, 0, 0)))
    assert deepest == pytest.approx(20)
    assert 0 < mean < deepest
    r, d = 0.03, 0.04
    lens = np.pi * (4 * r + d) * (2 * r - d) ** 2 / 12 * 1e6
    box = np.full(3, -0.05), np.full(3, 0.08)
    found = contact.common_volume(sphere(r), sphere(r, (d, 0, 0)), *box, voxel=0.001)
    assert found == pytest.approx(lens, rel=0.02)
    assert contact.common_volume(sphere(r), sphere(r, (0.07, 0, 0)), *box) == 0


def test_contact_is_within_five_millimeters():
    vertices, _ = octahedron(1)
    frames = np.stack([0.03 * vertices + [gap, 0, 0] for gap in (0.064, 0.066, 0.02)])
    touched = contact.in_contact(frames, sphere(0.03))
    assert list(touched) == [True, False, True]
    assert contact.contact_ratio(touched) == pytest.approx(200 / 3)
    assert contact.contact_accuracy(touched, np.array([True, True, True])) == pytest.approx(200 / 3)


def test_overlap_of_masks():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert contact.mask_iou(a, b) == pytest.approx(1 / 3)
    assert contact.mask_iou(a, b, np.arange(4)[:, None] > 0) == pytest.approx(1 / 2)
    assert np.isnan(contact.mask_iou(a & ~a, a & ~a))

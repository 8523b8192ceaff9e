"""Orbits stay where photographs were taken, and paths go along them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from splats.data.normalization import camera_centers
from splats.data.scene_facts import SceneFacts, pinholes
from splats.data.splits import Split
from splats.video.camera_path import look_at
from splats.video.scene_path import (
    SWING,
    common_point,
    covering_arc,
    orbit_of_scene,
    path_of_scene,
    surroundings,
)
from training.errors import InputError

TARGET, UP = np.array([0.3, -0.2, 0.7]), (0.0, 0.0, 1.0)


def facts_at(degrees, radius=2.0, height=0.5):
    """Cameras at azimuths around the target, looking at it."""
    angles = np.radians(degrees)
    eyes = TARGET + np.stack(
        [radius * np.cos(angles), radius * np.sin(angles), np.full(len(angles), height)], axis=1
    )
    poses = np.stack([look_at(eye, TARGET.tolist(), UP) for eye in eyes.tolist()])
    names = tuple(f"{number:03d}.png" for number in range(len(poses)))
    return SceneFacts(
        names=names,
        sizes=np.tile([40, 30], (len(poses), 1)).astype(np.int32),
        world_to_camera=poses.astype(np.float32),
        intrinsics=pinholes(np.tile([35.0, 35.0, 20.0, 15.0], (len(poses), 1))),
        normalization=np.eye(4),
        scene_scale=1.0,
        split=Split(names[1:], names[:1]),
        kind="colmap",
    )


def azimuths(path):
    offsets = camera_centers(path.world_to_camera) - TARGET
    return np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0]))


def test_what_was_photographed_from_one_side_is_shown_from_that_side():
    # Level, since the mean up of cameras that look down from one side leans to it.
    facts = facts_at(np.linspace(60, 120, 13), height=0.0)
    path = orbit_of_scene(facts, 40)
    shown = azimuths(path)
    assert np.degrees(surroundings(facts).arc) == pytest.approx(60, abs=1e-3)
    assert shown.max() == pytest.approx(90 + SWING * 30, abs=0.1)
    assert shown.min() == pytest.approx(90 - SWING * 30, abs=0.1)
    offsets = camera_centers(path.world_to_camera) - TARGET
    np.testing.assert_allclose(offsets[:, 2], 0.0, atol=1e-5)
    np.testing.assert_allclose(np.hypot(offsets[:, 0], offsets[:, 1]), 2.0, atol=1e-5)


def test_the_side_may_lie_across_the_cut_of_angles():
    shown = azimuths(orbit_of_scene(facts_at(np.linspace(150, 210, 9)), 16)) % 360
    assert shown.min() > 150 and shown.max() < 210


def test_what_was_photographed_all_around_is_circled():
    for step in (20, 90):
        facts = facts_at(np.arange(0, 360, step))
        assert surroundings(facts).closed
        around = np.sort(azimuths(orbit_of_scene(facts, 8)) % 360)
        np.testing.assert_allclose(np.diff(around), 45, atol=1e-3)


def test_the_shortest_arc_leaves_out_the_widest_gap():
    middle, arc = covering_arc(np.radians([10, 350, 40, 20]))
    assert np.degrees([middle, arc]) % 360 == pytest.approx([15, 50])
    assert covering_arc(np.array([0.5])) == (0.5, 0.0)


def test_a_path_begins_and_ends_at_the_first_and_the_last_photograph():
    facts = facts_at([0, 10, 20, 50])
    path = path_of_scene(facts, 30)
    for frame, view in ((0, 0), (29, 3)):
        np.testing.assert_allclose(
            path.world_to_camera[frame], facts.world_to_camera[view], atol=1e-6
        )
    assert (path.width, path.height) == (40, 30)
    assert (np.diff(azimuths(path)) > 0).all()


def test_the_common_point_of_axes_is_found_and_parallel_axes_are_refused():
    centers = 3 * np.random.default_rng(0).normal(size=(6, 3))
    target = np.array([0.3, -0.2, 0.7])
    forward = target - centers
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    np.testing.assert_allclose(common_point(centers, forward), target, atol=1e-9)
    with pytest.raises(InputError, match="nearly one direction"):
        common_point(centers, np.tile([[0.0, 0.0, 1.0]], (6, 1)))
    facts = facts_at([0, 1])
    with pytest.raises(InputError, match="pass --input path"):
        orbit_of_scene(replace(facts, world_to_camera=facts.world_to_camera[[0, 0]]), 4)

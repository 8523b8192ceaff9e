"""Pictures show the parts where the camera sees them, and turning views what is behind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hand_object import pictures
from hand_object.data.sequence import OBJECT, RIGHT
from hand_object.metrics.contact_heat import contact_heat


def test_an_overlay_lies_on_the_masks(truth, sequence):
    """The masks were drawn from the same meshes; a vertex is colored by its part alone."""
    image = np.zeros((*sequence.size, 3), np.uint8)
    shown = pictures.overlay(truth, 2, image)
    mask = sequence.mask(2)
    assert not shown[mask == 0].any()
    for number, name in ((RIGHT, "right"), (OBJECT, "object")):
        own = shown[mask == number].astype(float)
        share = own / own.sum(axis=1, keepdims=True)
        wanted = np.array(pictures.PLAIN[name]) / sum(pictures.PLAIN[name])
        # Rounding to whole levels, at the darkest shade.
        assert np.abs(share - wanted).max() < 0.02


def test_what_is_covered_keeps_a_part_of_the_input(truth, sequence):
    dark, bright = (
        pictures.overlay(truth, 0, np.full((*sequence.size, 3), level, np.uint8)).astype(int)
        for level in (0, 200)
    )
    here = sequence.mask(0) > 0
    np.testing.assert_allclose((bright - dark)[here], 200 * (1 - pictures.OPACITY), atol=1)


def test_a_half_turn_shows_the_other_side(truth):
    """A red half toward the camera, a blue one away from it."""
    thing = truth.object
    camera = truth.world_to_camera[0]
    near = (thing.vertices(0) @ camera[:3, :3].T)[:, 2] < (
        thing.to_world[0, :3, 3] @ camera[:3, :3].T
    )[2]
    colors = np.where(near[:, None], [255, 0, 0], [0, 0, 255]).astype(np.uint8)
    alone = dataclasses.replace(
        truth,
        hands={},
        object=dataclasses.replace(thing, mesh=dataclasses.replace(thing.mesh, colors=colors)),
    )
    front, behind = pictures.turntable(alone, 0, (64, 64), 2).astype(int)
    red = lambda shown: (shown[..., 0] > shown[..., 2] + 50).sum()  # noqa: E731
    blue = lambda shown: (shown[..., 2] > shown[..., 0] + 50).sum()  # noqa: E731
    assert red(front) > 100 > 5 * blue(front)
    assert blue(behind) > 100 > 5 * red(behind)


def test_side_by_side_is_input_overlay_and_view(truth, sequence):
    height, width = sequence.size
    image = sequence.image(1)
    shown = pictures.side_by_side(truth, 1, image)
    assert shown.shape == (height, 3 * width, 3)
    np.testing.assert_array_equal(shown[:, :width], image)
    np.testing.assert_array_equal(shown[:, width : 2 * width], pictures.overlay(truth, 1, image))
    assert pictures.side_by_side(truth, 1, None).shape == (height, width, 3)


def test_contact_is_warm_where_it_is_and_gray_elsewhere():
    tints = pictures.heat_tints({"object": np.array([0, 1e-3, 0.5, 1.0])})["object"]
    assert (tints[0] == tints[0, 0]).all()
    assert np.argmax(tints[1]) == 2 and np.argmax(tints[3]) == 0
    assert tints[3, 0] > 200


def test_contact_of_a_grasp_is_seen(fine_truth):
    heat = contact_heat(fine_truth)
    shown = pictures.contact_picture(fine_truth, heat, 0, (80, 80)).astype(int)
    assert shown.shape == (80, 4 * 80, 3)
    colored = np.ptp(shown, axis=-1) > 60
    assert colored.sum() > 20
    cold = {name: np.zeros_like(share) for name, share in heat.items()}
    assert (
        np.ptp(pictures.contact_picture(fine_truth, cold, 0, (80, 80)).astype(int), axis=-1) <= 2
    ).all()


def test_a_sheet_has_overlays_above_contact(truth, sequence):
    images = np.stack([sequence.image(frame) for frame in range(len(truth))])
    height, width = sequence.size
    shown = pictures.sheet(truth, contact_heat(truth), images)
    assert shown.shape == (2 * height, 4 * width, 3)
    last = pictures.overlay(truth, len(truth) - 1, images[-1])
    np.testing.assert_array_equal(shown[:height, 3 * width :], last)


def test_a_frame_without_parts_is_empty(truth):
    none = np.zeros(len(truth), bool)
    gone = dataclasses.replace(
        truth,
        hands={"right": dataclasses.replace(truth.hands["right"], valid=none)},
        object=dataclasses.replace(truth.object, valid=none),
    )
    image = np.full((*truth.size, 3), 7, np.uint8)
    np.testing.assert_array_equal(pictures.overlay(gone, 0, image), image)
    assert (pictures.turned_view(gone, 0, 0.0, (8, 8)) == pictures.BACKGROUND).all()
    with pytest.raises(KeyError):
        pictures.turned_view(truth, 0, 0.0, (8, 8), {})

"""Grasps of the data: when a hand holds the object, with which zones."""

from dataclasses import replace

import numpy as np

from hand_object.data.sequence import UNKNOWN
from hand_object.grasps import BREAK, closed, find_grasps, masks_touch, touching_zones
from hand_object.hands.zones import ZONES
from hand_object.render.scene_placement import statics_of
from tests.hand_object.scenes import small_opened


def test_the_made_hand_holds_its_box_with_its_finger_tips_throughout():
    opened = small_opened()
    grasp = find_grasps(opened, statics_of(opened.sequence, opened.hands))["right"]
    assert grasp.holding.all()
    tips = [ZONES.index(f"{name}_tip") for name in ("index", "middle", "ring")]
    assert grasp.touching[:, tips].all()
    assert (grasp.zones.sum(axis=1) > 0).all()


def test_an_object_far_away_is_not_held_whatever_the_masks_say():
    opened = small_opened()
    thing = opened.sequence.object
    assert thing is not None
    translation = thing.translation.copy()
    translation[3:] += 0.3
    sequence = replace(opened.sequence, object=replace(thing, translation=translation))
    moved = replace(opened, sequence=sequence)
    grasp = find_grasps(moved, statics_of(moved.sequence, moved.hands))["right"]
    assert grasp.holding[:3].all() and not grasp.holding[3:].any()
    assert not grasp.touching[3:].any()


def test_frames_without_the_hand_are_no_grasp_even_in_a_short_break():
    opened = small_opened()
    track = opened.sequence.hands["right"]
    valid = np.arange(len(track.valid)) != 4
    sequence = replace(opened.sequence, hands={"right": replace(track, valid=valid)})
    absent = replace(opened, sequence=sequence)
    grasp = find_grasps(absent, statics_of(absent.sequence, absent.hands))["right"]
    np.testing.assert_array_equal(grasp.holding, valid)


def test_masks_that_do_not_meet_are_no_grasp_and_unknown_ones_say_nothing():
    masks = np.zeros((3, 40, 50), np.uint8)
    masks[:, 5:10, 5:10] = 1
    masks[0, 5:10, 10:15] = 2
    masks[1, 30:35, 40:45] = 2
    masks[2] = UNKNOWN
    assert masks_touch(masks, 2).tolist() == [True, False, True]


def test_short_breaks_are_closed_and_long_ones_are_not():
    for count, expected in ((BREAK, True), (BREAK + 1, False)):
        holding = np.ones(20, bool)
        holding[8 : 8 + count] = False
        assert closed(holding).all() == expected
    late = np.arange(12) >= 10
    np.testing.assert_array_equal(closed(late), late)


def test_a_zone_touches_by_the_median_of_its_grasp():
    zones = np.eye(2, dtype=bool)
    holding = np.array([1, 1, 1, 0, 1], bool)
    gaps = np.array([[0.001, 0.5], [0.05, 0.5], [0.002, 0.5], [0.0, 0.0], [0.3, 0.001]])
    found = touching_zones(gaps, zones, holding)
    assert found.tolist() == [[True, False]] * 3 + [[False, False], [False, True]]

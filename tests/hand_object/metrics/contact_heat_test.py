"""A fingertip that touches in half of the frames is half as warm, and the far side stays cold."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import KDTree

from hand_object.metrics.contact_heat import contact_heat


def test_the_warmth_is_the_share_of_frames(fine_truth):
    heat = contact_heat(fine_truth)
    assert set(heat) == {"object", "right"}
    hand = fine_truth.hands["right"]
    vertices, thing = hand.vertices(0), fine_truth.object.vertices(0)
    # Triangles are below 2 cm: farther away nothing can be within 5 mm of one.
    assert not heat["right"][KDTree(thing).query(vertices)[0] > 0.025].any()
    assert not heat["object"][KDTree(vertices).query(thing)[0] > 0.025].any()
    assert heat["right"].max() > 0.8 and heat["object"].max() > 0.8
    gone = fine_truth.object.to_world.copy()
    gone[::2, 1, 3] += 1.0
    half = contact_heat(
        dataclasses.replace(
            fine_truth, object=dataclasses.replace(fine_truth.object, to_world=gone)
        )
    )
    always = heat["right"] == 1
    assert always.any()
    np.testing.assert_allclose(half["right"][always], 0.5)


def test_frames_without_a_hand_do_not_cool(fine_truth):
    hand = fine_truth.hands["right"]
    some = dataclasses.replace(hand, valid=np.arange(len(fine_truth)) == 3)
    heat = contact_heat(dataclasses.replace(fine_truth, hands={"right": some}))
    assert heat["right"].max() == heat["object"].max() == 1
    none = dataclasses.replace(hand, valid=np.zeros(len(fine_truth), bool))
    cold = contact_heat(dataclasses.replace(fine_truth, hands={"right": none}))
    assert cold["right"].max() == cold["object"].max() == 0
    assert contact_heat(dataclasses.replace(fine_truth, object=None)) == {}

"""The truth scores perfectly against itself; each displacement is seen in its own figures alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hand_object.metrics import scores as module
from hand_object.metrics.scores import scores
from hand_object.reconstruction import Reconstruction
from training.errors import ConfigError


@pytest.fixture(scope="module", autouse=True)
def few_points():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "POINTS", 500)
        yield


@pytest.fixture(scope="module")
def own(truth, few_points) -> dict[str, float]:
    return scores(truth, truth)


def with_object(truth: Reconstruction, **changes) -> Reconstruction:
    return dataclasses.replace(truth, object=dataclasses.replace(truth.object, **changes))


def with_hand(truth: Reconstruction, **changes) -> Reconstruction:
    hand = dataclasses.replace(truth.hands["right"], **changes)
    return dataclasses.replace(truth, hands={"right": hand})


def shifted(poses: np.ndarray, shift) -> np.ndarray:
    moved = poses.copy()
    moved[..., :3, 3] += shift
    return moved


def test_the_truth_is_perfect(own):
    for name in ("mpjpe", "placed_mpjpe", "chamfer", "chamfer_icp", "chamfer_hand"):
        assert own[name] == pytest.approx(0, abs=1e-9), name
    for name in ("f5_icp", "f10_icp", "contact_accuracy", "contact_ratio"):
        assert own[name] == 100, name
    for name in ("jerk", "jitter", "penetration_depth", "penetration_volume", "contact_ratio"):
        assert own[name] == own[f"true_{name}"], name
    # Fingers close until they touch: see `synthetic`.
    assert own["penetration_depth"] < 3


def test_a_shift_of_everything_leaves_relative_figures(truth, own):
    shift = np.array([0.03, 0, 0])
    moved = with_object(truth, to_world=shifted(truth.object.to_world, shift))
    hand = truth.hands["right"]
    moved = with_hand(moved, transforms=shifted(hand.transforms, shift), joints=hand.joints + shift)
    found = scores(moved, truth)
    assert found["placed_mpjpe"] == pytest.approx(30)
    assert found["chamfer"] > 1
    for name in ("mpjpe", "chamfer_icp", "chamfer_hand"):
        assert found[name] == pytest.approx(0, abs=1e-6), name
    assert found["penetration_depth"] == pytest.approx(own["penetration_depth"], abs=1e-6)
    assert found["jerk"] == pytest.approx(own["jerk"])


def test_an_object_out_of_reach_is_no_contact(truth):
    far = with_object(truth, to_world=shifted(truth.object.to_world, [0, 0.3, 0]))
    found = scores(far, truth)
    assert found["contact_ratio"] == found["contact_accuracy"] == 0
    assert found["penetration_depth"] == found["penetration_volume"] == 0
    assert found["chamfer_hand"] > 100
    assert found["chamfer_icp"] < 1e-6


def test_an_object_through_the_hand_is_seen_in_depth_and_volume(truth, own):
    hand = truth.hands["right"]
    palm = np.mean(hand.joints[:, [0, 9]], axis=1)
    toward = palm - truth.object.to_world[:, :3, 3]
    deep = with_object(truth, to_world=shifted(truth.object.to_world, 0.5 * toward))
    found = scores(deep, truth)
    assert found["penetration_depth"] > own["penetration_depth"] + 5
    assert found["penetration_volume"] > own["penetration_volume"] + 5


def test_frames_without_a_hand_do_not_count(truth):
    hand = truth.hands["right"]
    joints, transforms = hand.joints.copy(), hand.transforms.copy()
    joints[0], transforms[0] = 7.0, 7.0
    valid = np.arange(len(truth)) != 0
    found = scores(with_hand(truth, joints=joints, transforms=transforms, valid=valid), truth)
    assert found["mpjpe"] == found["chamfer_hand"] == 0
    assert found["contact_accuracy"] == 100


def test_without_an_object_only_the_hand_is_measured(truth):
    figures = scores(dataclasses.replace(truth, object=None), truth)
    assert set(figures) == {"mpjpe", "placed_mpjpe", "jitter", "jerk", "true_jitter", "true_jerk"}


def test_unknown_protocols_are_refused(truth):
    with pytest.raises(ConfigError, match="surface or vertices"):
        scores(truth, truth, "agile")

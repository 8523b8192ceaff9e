"""Scores of frames add up as their names say."""

from types import SimpleNamespace

import numpy as np
import pytest

from hand_object import evaluation
from hand_object.config import Config
from hand_object.data.sequence import BACKGROUND, OBJECT, RIGHT, UNKNOWN
from hand_object.evaluation import comparison, frame_scores, summary
from hand_object.meshing import NoSurface


def frame(mask, seen, there=(True, True, True, True)):
    image = np.full((2, 2, 3), 100, np.uint8)
    color = np.full((2, 2, 3), 100 / 255 + 0.1, np.float32)
    return frame_scores(image, np.array(mask, np.uint8), color, np.array(seen), np.array(there))


def test_mask_overlap_is_of_the_pixels_of_all_frames_together():
    """A frame with one pixel of the object must not weigh as much as one that is full of it."""
    full = frame([[OBJECT, OBJECT], [OBJECT, RIGHT]], [[OBJECT, OBJECT], [OBJECT, RIGHT]])
    sliver = frame([[OBJECT, BACKGROUND], [RIGHT, RIGHT]], [[RIGHT, BACKGROUND], [RIGHT, RIGHT]])
    metrics = summary([full, sliver])
    assert metrics["mask_iou_object"] == pytest.approx(3 / 4)
    assert metrics["mask_iou_right"] == pytest.approx(3 / 4)
    assert metrics["mask_iou"] == pytest.approx(3 / 4)
    assert "mask_iou_left" not in metrics


def test_pixels_without_a_mask_do_not_count_in_the_overlap():
    scores = frame([[UNKNOWN, OBJECT], [UNKNOWN, UNKNOWN]], [[OBJECT, OBJECT], [OBJECT, RIGHT]])
    assert summary([scores])["mask_iou_object"] == 1
    assert "mask_iou_right" not in summary([scores])


def test_what_has_no_pose_does_not_count_in_the_overlap():
    """A mask may show an object that the sequence does not have, or a hand that was lost."""
    scores = frame([[OBJECT, RIGHT], [RIGHT, RIGHT]], [[RIGHT, RIGHT], [RIGHT, RIGHT]],
                   there=(True, False, True, False))  # fmt: skip
    metrics = summary([scores])
    assert metrics["mask_iou_right"] == 1 and "mask_iou_object" not in metrics


def test_foreground_psnr_is_of_the_mask_and_left_out_where_there_is_none():
    nothing = frame([[BACKGROUND] * 2] * 2, [[BACKGROUND] * 2] * 2)
    something = frame([[OBJECT] * 2] * 2, [[OBJECT] * 2] * 2)
    assert summary([nothing, something])["foreground_psnr"] == pytest.approx(20, abs=1e-3)
    assert "foreground_psnr" not in summary([nothing])


def test_pictures_show_truth_rendering_and_nodes_side_by_side():
    image = np.full((2, 3, 3), 7, np.uint8)
    shown = comparison(image, np.ones((2, 3, 3), np.float32), np.full((2, 3), BACKGROUND))
    assert shown.shape == (2, 9, 3) and shown.dtype == np.uint8
    assert (shown[:, :3] == 7).all() and (shown[:, 3:6] == 255).all() and (shown[:, 6:] == 0).all()


def test_a_field_without_a_surface_ends_no_evaluation(monkeypatch):
    def no_mesh(*_):
        raise NoSurface("all outside")

    monkeypatch.setattr(evaluation, "true_scene", lambda opened: "truth")
    monkeypatch.setattr(evaluation, "trained_scene", no_mesh)
    task = SimpleNamespace(opened=None, config=Config("hand_object"))
    assert evaluation.compare(task, {}).metrics == {"surfaces": 0.0}  # type: ignore[arg-type]

"""Detections are the best pairs of query and class, whatever their scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.boxes import BoxFormatError, cxcywh_norm, xyxy_px
from rtdetr.postprocess import top_detections
from tests.rtdetr.losses.golden import golden_values


def test_the_reference_detections_come_out(data_root):
    values = golden_values(data_root)
    found = top_detections(
        jnp.asarray(values["eval/dec_logits"][-1]),
        cxcywh_norm(jnp.asarray(values["eval/dec_boxes"][-1])),
        20,
    )
    np.testing.assert_array_equal(found.labels, values["post/labels"])
    np.testing.assert_allclose(found.scores, values["post/scores"], rtol=1e-6)
    sizes = values["post/image_wh"][:, None, ::-1]
    boxes = cxcywh_norm(np.asarray(found.boxes.values)).pixels(sizes).values
    np.testing.assert_allclose(boxes, values["post/boxes_xyxy_pixels"], rtol=1e-5, atol=1e-3)


def test_every_detection_has_the_box_and_the_class_of_its_score():
    key = jax.random.key(3)
    logits = jax.random.normal(key, (2, 7, 5))
    boxes = jax.random.uniform(jax.random.fold_in(key, 1), (2, 7, 4))
    found = jax.jit(top_detections, static_argnums=2)(logits, cxcywh_norm(boxes), 12)
    for image in range(2):
        pairs = [
            (float(jax.nn.sigmoid(logits[image, q, k])), k, q) for q in range(7) for k in range(5)
        ]
        for place, (score, label, query) in enumerate(sorted(pairs, reverse=True)[:12]):
            assert found.scores[image, place] == pytest.approx(score, rel=1e-6)
            assert found.labels[image, place] == label
            np.testing.assert_array_equal(found.boxes.values[image, place], boxes[image, query])


def test_low_scores_and_short_lists_stay_complete():
    found = top_detections(jnp.full((1, 2, 3), -80.0), cxcywh_norm(jnp.ones((1, 2, 4))), 300)
    assert found.scores.shape == (1, 6)


def test_logits_that_one_probability_stands_for_keep_their_order():
    logits = jnp.array([[[20.0], [40.0], [30.0]]])
    boxes = cxcywh_norm(jnp.arange(12.0).reshape(1, 3, 4))
    found = top_detections(logits, boxes, 3)
    np.testing.assert_array_equal(found.boxes.values[0, :, 0], [4.0, 8.0, 0.0])


def test_pixel_boxes_are_refused():
    with pytest.raises(BoxFormatError, match="top_detections"):
        top_detections(jnp.zeros((1, 2, 3)), xyxy_px(jnp.zeros((1, 2, 4)), jnp.ones(2)), 2)


def test_nothing_but_sorts_and_gathers_moves_numbers():
    lowered = jax.jit(lambda x, y: top_detections(x, cxcywh_norm(y), 5)).lower(
        jnp.zeros((1, 4, 3)), jnp.zeros((1, 4, 4))
    )
    assert "scatter" not in lowered.as_text()

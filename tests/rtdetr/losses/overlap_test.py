"""IoU and GIoU of boxes: values known by hand, limits, and gradients where boxes degenerate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.boxes import BoxFormatError, cxcywh_norm, xyxy_px
from rtdetr.losses.overlap import iou, iou_and_giou, pairwise
from tests.rtdetr.losses.golden import random_boxes


def boxes(*rows):
    return cxcywh_norm(jnp.array(rows, jnp.float32))


KNOWN = (
    # the same box; halves of a box; side by side; two unit squares apart by one side
    ((0.5, 0.5, 0.2, 0.4), (0.5, 0.5, 0.2, 0.4), 1.0, 1.0),
    ((0.5, 0.5, 0.2, 0.2), (0.55, 0.5, 0.1, 0.2), 0.5, 0.5),
    ((0.4, 0.5, 0.2, 0.2), (0.6, 0.5, 0.2, 0.2), 0.0, 0.0),
    ((0.3, 0.5, 0.2, 0.2), (0.7, 0.5, 0.2, 0.2), 0.0, -1 / 3),
)


@pytest.mark.parametrize(("a", "b", "shared", "generalized"), KNOWN)
def test_values_known_by_hand(a, b, shared, generalized):
    found, giou = iou_and_giou(boxes(a), boxes(b))
    # Edges are rounded to 6e-8, over sides of at least 0.1.
    assert float(found[0]) == pytest.approx(shared, abs=5e-6)
    assert float(giou[0]) == pytest.approx(generalized, abs=5e-6)
    assert float(iou(boxes(a), boxes(b))[0]) == float(found[0])


def test_pairwise_holds_every_pair():
    draw = np.random.default_rng(0)
    a, b = cxcywh_norm(jnp.asarray(random_boxes(draw, 3))), cxcywh_norm(random_boxes(draw, 5))
    table = iou_and_giou(*pairwise(a, cxcywh_norm(jnp.asarray(b.values))))[1]
    for i in range(3):
        for j in range(5):
            one = iou_and_giou(a[i : i + 1], b[j : j + 1])[1]
            assert float(table[i, j]) == pytest.approx(float(one[0]), abs=1e-6)


def test_generalized_overlap_stays_in_its_range_and_below_the_overlap():
    draw = np.random.default_rng(1)
    a, b = (cxcywh_norm(jnp.asarray(random_boxes(draw, 500))) for _ in range(2))
    shared, giou = iou_and_giou(a, b)
    assert (shared >= 0).all() and (shared <= 1).all()
    assert (giou > -1).all() and (giou <= shared + 1e-6).all()


@pytest.mark.parametrize("side", [0.0, 1e-38, 1e-20, 1e-9])
def test_boxes_without_area_have_finite_values_and_gradients(side):
    def total(values):
        shared, giou = iou_and_giou(cxcywh_norm(values), boxes((0.5, 0.5, side, side)))
        return jnp.sum(shared + giou)

    for width, height in ((side, side), (side, 0.3), (0.3, side)):
        value, gradient = jax.value_and_grad(total)(jnp.array([[0.5, 0.5, width, height]]))
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_gradient_is_the_difference_in_float64():
    draw = np.random.default_rng(3)
    a, b = random_boxes(draw, 20), random_boxes(draw, 20)
    gradient = jax.grad(lambda v: jnp.sum(iou_and_giou(cxcywh_norm(v), cxcywh_norm(b))[1]))(
        jnp.asarray(a)
    )

    def giou64(box, other):
        (al, at, ar, ab), (bl, bt, br, bb) = (
            (x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (box, other)
        )
        shared = max(min(ar, br) - max(al, bl), 0) * max(min(ab, bb) - max(at, bt), 0)
        union = (ar - al) * (ab - at) + (br - bl) * (bb - bt) - shared
        hull = (max(ar, br) - min(al, bl)) * (max(ab, bb) - min(at, bt))
        return shared / union - (hull - union) / hull

    for box, other, found in zip(a.astype(float), b.astype(float), np.asarray(gradient)):
        for i, step in enumerate(1e-6 * np.eye(4)):
            slope = (giou64(box + step, other) - giou64(box - step, other)) / 2e-6
            # Differences err by 1e-10, float32 by some 100 roundings of values near 10.
            assert found[i] == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_pixel_boxes_are_refused():
    pixels = xyxy_px(jnp.zeros((1, 4)), jnp.zeros((1, 2)))
    with pytest.raises(BoxFormatError, match="the overlap needs boxes in the format cxcywh_norm"):
        iou(pixels, pixels)

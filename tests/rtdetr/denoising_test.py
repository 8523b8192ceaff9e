"""Denoising queries: packing, noise and who sees whom, whatever else is in the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.boxes import cxcywh_norm
from rtdetr.config import DenoisingConfig
from rtdetr.denoising import make_queries
from rtdetr.targets import Targets
from tests.rtdetr.losses.golden import random_targets

SLOTS, OBJECTS, CLASSES, QUERIES = 12, 16, 7, 5
CONFIG = DenoisingConfig(slots=SLOTS)
COUNTS = (0, 1, 5, 12, 16)
compiled = jax.jit(make_queries, static_argnums=(2, 3, 4))


def made(targets, config=CONFIG, seed=0):
    keys = jax.random.split(jax.random.key(seed), targets.labels.shape[0])
    return compiled(keys, targets, config, CLASSES, QUERIES)


@pytest.fixture(scope="module")
def targets():
    return random_targets(np.random.default_rng(4), COUNTS, OBJECTS, CLASSES)


@pytest.fixture(scope="module")
def queries(targets):
    return made(targets)


def test_slots_hold_as_many_whole_groups_as_go_in(queries):
    used = np.asarray(queries.used)
    assert used[:, :SLOTS].sum(1).tolist() == [0, 12, 10, 12, 12]
    np.testing.assert_array_equal(used[:, :SLOTS], used[:, SLOTS:])
    target = np.asarray(queries.target)
    assert (target[:, SLOTS:] == -1).all() and (target[~used] == -1).all()
    assert (target[1, :SLOTS] == 0).all()
    assert target[2, :SLOTS].tolist() == [0, 1, 2, 3, 4] * 2 + [-1] * 2
    assert (np.asarray(queries.classes)[~used] == CLASSES).all()
    assert np.isfinite(queries.boxes_logit).all()


def test_too_many_objects_leave_a_random_choice_of_them(targets):
    seen = set()
    for seed in range(6):
        chosen = np.asarray(made(targets, seed=seed).target)[4, :SLOTS]
        assert len(set(chosen)) == SLOTS and chosen.max() < OBJECTS
        seen |= set(chosen)
    assert seen == set(range(OBJECTS))


def test_more_slots_than_objects_of_the_arrays_are_no_trouble():
    targets = random_targets(np.random.default_rng(6), [2, 3], 3, CLASSES)
    assert np.asarray(made(targets).target).max(1).tolist() == [1, 2]


def same(a, a_image, b, b_image):
    for name in ("classes", "target", "used", "allowed"):
        np.testing.assert_array_equal(getattr(a, name)[a_image], getattr(b, name)[b_image])
    boxes, others = jax.nn.sigmoid(a.boxes_logit[a_image]), jax.nn.sigmoid(b.boxes_logit[b_image])
    # Two programs may round differently, by some units of 6e-8 in numbers up to 1.
    np.testing.assert_allclose(boxes, others, atol=1e-6)


def test_an_image_does_not_depend_on_the_others_or_on_the_padding(targets, queries):
    keys = jax.random.split(jax.random.key(0), len(COUNTS))
    for image in (2, 4):
        values = jnp.pad(targets.boxes.values[image][None], ((0, 0), (0, 3), (0, 0)))
        labels = jnp.pad(targets.labels[image][None], ((0, 0), (0, 3)), constant_values=-1)
        alone = Targets(cxcywh_norm(values), labels)
        found = compiled(keys[image][None], alone, CONFIG, CLASSES, QUERIES)
        same(queries, image, found, 0)


def test_queries_see_their_group_and_all_matching_ones(queries):
    allowed = np.asarray(queries.allowed)
    total = 2 * SLOTS + QUERIES
    assert allowed.shape == (len(COUNTS), total, total)
    assert allowed[:, :, 2 * SLOTS :].all(), "everyone sees the matching queries"
    assert not allowed[:, 2 * SLOTS :, : 2 * SLOTS].any(), "who never see an object's noisy copy"
    group = np.tile(np.arange(SLOTS) // 5, 2)  # of image 2, with 5 objects
    used = np.asarray(queries.used)[2]
    expected = (group[:, None] == group) & used[:, None] & used
    np.testing.assert_array_equal(allowed[2, : 2 * SLOTS, : 2 * SLOTS], expected)
    assert not allowed[0, :, : 2 * SLOTS].any()


def many(box, noise, label_noise=0.5, images=400):
    """Noisy copies of one object: boxes `[images * S, 4]` as edges, and classes, `[2, ...]`."""
    values = jnp.tile(jnp.array(box, jnp.float32), (images, 1, 1))
    targets = Targets(cxcywh_norm(values), jnp.full((images, 1), 3, jnp.int32))
    queries = made(targets, DenoisingConfig(SLOTS, label_noise, noise))
    x = np.asarray(jax.nn.sigmoid(queries.boxes_logit)).reshape(images, 2, SLOTS, 4)
    edges = np.concatenate([x[..., :2] - x[..., 2:] / 2, x[..., :2] + x[..., 2:] / 2], -1)
    classes = np.asarray(queries.classes).reshape(images, 2, SLOTS)
    return edges.swapaxes(0, 1).reshape(2, -1, 4), classes.swapaxes(0, 1).reshape(2, -1)


@pytest.mark.parametrize("noise", [0.4, 0.9])
def test_edges_move_by_less_than_half_a_side_and_those_of_negatives_by_more(noise):
    # Wide and high enough that no edge leaves the canvas and no side turns negative.
    box = (0.5, 0.5, 0.2, 0.4)
    edges, _ = many(box, noise / 2)
    half = np.array([0.1, 0.2, 0.1, 0.2]) * noise / 2
    parts = (edges - np.array([0.4, 0.3, 0.6, 0.7])) / half
    sizes, slack = np.abs(parts), 1e-4
    assert sizes[0].max() <= 1 + slack and sizes[0].max() > 0.99 and sizes[0].min() < 0.01
    assert sizes[1].min() >= 1 - slack and sizes[1].max() <= 2 + slack
    # Signs are fair and parts uniform: means of 4800 draws, within 5 standard errors.
    assert np.abs((parts > 0).mean((0, 1)) - 0.5).max() < 5 * 0.5 / np.sqrt(9600)
    assert np.abs(sizes.mean(1) - [[0.5], [1.5]]).max() < 5 * 0.289 / np.sqrt(4800)


def test_boxes_stay_on_the_canvas():
    edges, _ = many((0.9, 0.1, 0.2, 0.2), 1.0)
    assert edges.min() >= -1e-4 and edges.max() <= 1 + 1e-4


def test_half_of_the_label_noise_is_the_share_of_drawn_classes():
    for noise in (0.0, 0.5, 1.0):
        _, classes = many((0.5, 0.5, 0.2, 0.2), 0.5, noise)
        assert classes.min() >= 0 and classes.max() < CLASSES
        share = noise / 2 * (1 - 1 / CLASSES)  # a drawn class may be the right one
        changed = (classes != 3).mean(1)
        allowed = 5 * np.sqrt(share * (1 - share) / 4800)
        assert np.abs(changed - share).max() <= allowed

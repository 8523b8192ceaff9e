"""Masks: exact counts, no overlap, boxes as configured."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.config import MaskConfig
from jepa3d.masks import (
    LONG_RANGE,
    MASK_PRESETS,
    SHORT_RANGE,
    check_masks,
    cover_counts,
    mask_preset,
    sample_masks,
)
from training.errors import ConfigError
from training.typed import build, shallow

GRID = (16, 24, 24)
TOKENS = 16 * 24 * 24


def sample_many(key, grid, config, count=16, foreground=None):
    draw = jax.jit(jax.vmap(lambda k: sample_masks(k, grid, config, foreground)))
    return (np.array(ids) for ids in draw(jax.random.split(key, count)))


@pytest.mark.parametrize("config", [SHORT_RANGE, LONG_RANGE, MASK_PRESETS["mask06"][0]])
def test_counts_are_exact_ids_rise_and_no_token_is_in_both(new_key, config):
    contexts, targets = sample_many(new_key(), GRID, config)
    assert contexts.shape == (16, config.context_tokens)
    assert targets.shape == (16, config.target_tokens)
    assert contexts.dtype == targets.dtype == np.int32
    for context, target in zip(contexts, targets):
        assert (np.diff(context) > 0).all() and (np.diff(target) > 0).all()
        both = np.union1d(context, target)
        assert len(both) == config.context_tokens + config.target_tokens
        assert both.min() >= 0 and both.max() < TOKENS


def test_mask06_is_a_partition_of_the_grid(new_key):
    (config,) = mask_preset("mask06", GRID)
    contexts, targets = sample_many(new_key(), GRID, config, count=2)
    for context, target in zip(contexts, targets):
        np.testing.assert_array_equal(np.union1d(context, target), np.arange(TOKENS))


def test_same_key_same_mask_and_other_key_other_mask(new_key):
    key = new_key()
    first, again = (sample_masks(key, GRID, SHORT_RANGE)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (np.array(first) != np.array(sample_masks(new_key(), GRID, SHORT_RANGE)[0])).any()


@pytest.mark.parametrize(
    ("config", "low", "high"), [(SHORT_RANGE, 0.55, 0.67), (LONG_RANGE, 0.74, 0.87)]
)
def test_union_of_boxes_covers_the_published_share(new_key, config, low, high):
    keys = jax.random.split(new_key(), 64)
    covered = jax.vmap(lambda k: cover_counts(k, GRID, config))(keys) > 0
    assert low < float(covered.mean()) < high


@pytest.mark.parametrize(("config", "filled"), [(SHORT_RANGE, 0.01), (LONG_RANGE, 0.08)])
def test_context_rarely_needs_covered_tokens_and_targets_are_covered(new_key, config, filled):
    """Measured shares for these counts: 0.2 % and 3.8 % of the context, 0 to 2 % of the targets."""

    def shares(key):
        box_key, _ = jax.random.split(key)
        covered = cover_counts(box_key, GRID, config) > 0
        context, target = sample_masks(key, GRID, config)
        return covered[context].mean(), 1.0 - covered[target].mean()

    inside, outside = jax.vmap(shares)(jax.random.split(new_key(), 64))
    assert float(inside.mean()) < filled
    assert float(outside.mean()) < 0.03


def test_tubes_hide_the_same_columns_in_every_slice(new_key):
    covered = np.array(cover_counts(new_key(), GRID, SHORT_RANGE)).reshape(GRID)
    np.testing.assert_array_equal(covered, np.broadcast_to(covered[:1], GRID))


def test_temporal_scale_shortens_boxes(new_key):
    half = dataclasses.replace(LONG_RANGE, blocks=1, temporal_scale=(0.5, 0.5))
    covered = np.array(cover_counts(new_key(), GRID, half)).reshape(GRID)
    assert (covered.max(axis=(1, 2)) > 0).sum() == 8


def test_one_box_is_solid_and_has_the_configured_area(new_key):
    one = dataclasses.replace(SHORT_RANGE, blocks=1, aspect_ratio=(1.0, 1.0))
    covered = np.array(cover_counts(new_key(), GRID, one)).reshape(GRID)[0]
    rows, columns = np.nonzero(covered)
    assert covered.max() == 1
    assert np.ptp(rows) == np.ptp(columns) == 8  # round(sqrt(86)) = 9 tokens wide
    assert len(rows) == 81


def test_foreground_draws_boxes_toward_the_retina(new_key):
    retina = np.zeros(GRID, np.float32)
    retina[:, 8:12] = 1.0
    one = dataclasses.replace(SHORT_RANGE, blocks=1, foreground_floor=0.01)

    def rows(foreground):
        keys = jax.random.split(new_key(), 128)
        counts = jax.vmap(lambda k: cover_counts(k, GRID, one, foreground))(keys)
        return np.array(counts).reshape(-1, *GRID)[:, :, 8:12].mean()

    assert rows(jnp.asarray(retina).reshape(-1)) > 1.5 * rows(None)


def band_and_box():
    """Retina in two rows of tokens; the scan covers the first 15 of 24 columns."""
    retina, covered = np.zeros(GRID, bool), np.zeros(GRID, bool)
    retina[:, 10:13] = True
    covered[:, :, :15] = True
    return retina & covered, covered


@pytest.mark.parametrize("config", [SHORT_RANGE, LONG_RANGE])
def test_padding_is_never_a_target_and_a_minimum_of_retina_stays_visible(new_key, config):
    retina, covered = (jnp.asarray(mask.reshape(-1)) for mask in band_and_box())
    draw = jax.jit(jax.vmap(lambda k: sample_masks(k, GRID, config, retina, covered)))
    contexts, targets = (np.array(ids) for ids in draw(jax.random.split(new_key(), 32)))
    assert np.asarray(covered)[targets].all()
    visible = np.asarray(retina)[contexts].sum(axis=1)
    assert visible.min() >= config.retina_context * retina.sum()


def test_padding_is_predicted_only_where_nothing_else_is_left(new_key):
    """Of 1,024 covered tokens, with 1,000 visible ones wanted and 2,000 predicted."""
    covered = jnp.zeros(GRID, bool).at[:, :8, :8].set(True).reshape(-1)
    config = dataclasses.replace(SHORT_RANGE, context_tokens=1000, target_tokens=2000)
    context, target = (np.array(x) for x in sample_masks(new_key(), GRID, config, None, covered))
    assert not np.intersect1d(context, target).size
    assert np.asarray(covered)[np.union1d(context, target)].sum() == 1024
    hidden = np.asarray(covered)[target].sum()
    assert hidden > 0, "padding goes into the context before tokens from inside of the boxes do"


def test_retina_is_predicted_more_often_with_a_foreground(new_key):
    retina = jnp.asarray(band_and_box()[0].reshape(-1))

    def of_targets(foreground):
        draw = jax.jit(jax.vmap(lambda k: sample_masks(k, GRID, SHORT_RANGE, foreground)[1]))
        return float(retina[draw(jax.random.split(new_key(), 32))].mean())

    assert of_targets(retina) > 1.5 * of_targets(None)


def test_without_a_foreground_the_masks_do_not_know_the_volume(new_key):
    """The settings of the retina act on nothing: evaluation tells a predictor nothing."""
    key = new_key()
    other = dataclasses.replace(
        SHORT_RANGE, foreground_floor=0.0, retina_weight=50.0, retina_context=0.9
    )
    for a, b in zip(sample_masks(key, GRID, SHORT_RANGE), sample_masks(key, GRID, other)):
        np.testing.assert_array_equal(a, b)


def test_counts_beyond_the_grid_are_refused():
    with pytest.raises(ConfigError, match=r"exceed the 64 tokens of grid \(4, 4, 4\)"):
        check_masks(MaskConfig(context_tokens=40, target_tokens=30), (4, 4, 4))


def test_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="default"):
        mask_preset("mask60", GRID)


@pytest.mark.parametrize("grid", [(4, 4, 4), (8, 8, 8), (2, 3, 5)])
@pytest.mark.parametrize("name", sorted(MASK_PRESETS))
def test_presets_scale_down_to_small_grids(new_key, grid, name):
    for config in mask_preset(name, grid):
        context, target = sample_masks(new_key(), grid, config)
        assert len(np.union1d(context, target)) == config.context_tokens + config.target_tokens


@pytest.mark.parametrize(
    "changes",
    [{"blocks": 0}, {"spatial_scale": 1.5}, {"temporal_scale": (0.8, 0.5)}, {"context_tokens": 0}],
)
def test_senseless_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        build(MaskConfig, shallow(SHORT_RANGE) | changes, "masks[0]")


def test_targets_are_drawn_alike_from_all_covered_tokens():
    """Neither the first nor the last slices of the covered part are preferred."""
    grid, config = (4, 8, 8), MaskConfig(blocks=2, context_tokens=32, target_tokens=32)

    def one(key):
        covered = cover_counts(jax.random.split(key)[0], grid, config) > 0
        _, target = sample_masks(key, grid, config)
        return covered, jnp.zeros(covered.shape, bool).at[target].set(True)

    keys = jax.random.split(jax.random.key(0), 400)
    covered, chosen = (np.asarray(x) for x in jax.jit(jax.vmap(one))(keys))
    first, last = (
        (chosen & covered)[:, half].sum() / covered[:, half].sum()
        for half in (slice(None, 128), slice(128, None))
    )
    # Both are means of thousands of draws: their standard errors are below 0.01.
    assert abs(first - last) < 0.05

"""Augmentation: right in closed form, aligned with its tokens, and never upside down."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.config import AugmentConfig
from jepa3d.data.augment import augment as augment_covered
from jepa3d.data.augment import normalize

SHAPE = (8, 32, 32)
OFF = AugmentConfig(0.0, 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0, 0.0, 0.0)


def change(**values) -> AugmentConfig:
    return dataclasses.replace(OFF, **values)


def augment(key, volume, tokens, config):
    """A view of a volume that is covered everywhere, and its retina."""
    return augment_covered(key, volume, tokens, jnp.ones_like(tokens), config)[:2]


@pytest.fixture
def volume(new_key):
    return jax.random.normal(new_key(), SHAPE) + 3.0


@pytest.fixture
def tokens(new_key):
    return jax.random.bernoulli(new_key(), 0.5, (2, 4, 4))


def test_covered_voxels_are_normalized_and_the_background_keeps_its_gray(new_key):
    raw = np.array(jax.random.randint(new_key(), SHAPE, 0, 256).astype(jnp.uint8))
    raw[:, :4] = raw[:, 28:] = 7
    inside = raw[:, 4:28] / 255.0
    mean, std = np.float32(inside.mean()), np.float32(inside.std())
    result = np.asarray(normalize(jnp.asarray(raw), mean, std, 0.02))
    assert abs(result[:, 4:28].mean()) < 1e-5 and abs(result[:, 4:28].std() - 1) < 1e-4
    np.testing.assert_allclose(result[:, :4], (7 / 255 - mean) / std, rtol=1e-5)


def test_a_flat_volume_stays_finite():
    raw = jnp.full(SHAPE, 9, jnp.uint8)
    result = normalize(raw, jnp.float32(9 / 255), jnp.float32(0.0), 0.02)
    assert jnp.isfinite(result).all() and jnp.abs(result).max() < 1e-3


def test_everything_off_is_the_identity(new_key, volume, tokens):
    view, mask = augment(new_key(), volume, tokens, OFF)
    np.testing.assert_allclose(view, volume, atol=1e-5)
    np.testing.assert_array_equal(mask, tokens)


@pytest.mark.parametrize(("name", "axis"), [("lateral_flip", 2), ("pitch_flip", 0)])
def test_flips_mirror_volume_and_tokens_together(new_key, volume, tokens, name, axis):
    view, mask = augment(new_key(), volume, tokens, change(**{name: 1.0}))
    np.testing.assert_allclose(view, jnp.flip(volume, axis), atol=1e-5)
    np.testing.assert_array_equal(mask, jnp.flip(tokens, axis))


def test_no_key_turns_the_retina_upside_down(new_key):
    """A bright band above a dark one stays above it under the default augmentation."""
    depth = jnp.linspace(4.0, 1.0, 32)[None, :, None]
    volume = jnp.broadcast_to(depth, SHAPE)
    tokens = jnp.ones((2, 4, 4), bool)
    for key in jax.random.split(new_key(), 20):
        view, _ = augment(key, volume, tokens, AugmentConfig(speckle=0.0))
        profile = np.asarray(view).mean(axis=(0, 2))
        covered = profile[np.abs(profile) > 1e-3]
        assert np.polyfit(np.arange(len(covered)), covered, 1)[0] < 0


def test_axial_shift_moves_by_at_most_its_share(new_key):
    band = jnp.zeros(SHAPE).at[:, 14:18].set(5.0)
    config = change(axial_shift=0.1)
    rows = []
    for key in jax.random.split(new_key(), 30):
        view, _ = augment(key, band, jnp.ones((2, 4, 4), bool), config)
        profile = np.asarray(view).sum(axis=(0, 2))
        rows.append((profile * np.arange(32)).sum() / profile.sum())
    assert np.abs(np.array(rows) - 15.5).max() <= 0.1 * 32 + 0.01
    assert np.ptp(rows) > 2.0


def test_crop_magnifies_by_the_square_root_of_the_kept_area(new_key):
    position = jnp.broadcast_to(jnp.arange(32.0)[None, None, :] + 1.0, SHAPE)
    view, _ = augment(
        new_key(), position, jnp.ones((2, 4, 4), bool), change(crop_scale=(0.64, 0.64))
    )
    steps = np.diff(np.asarray(view)[4, 16, 2:-2])
    np.testing.assert_allclose(steps, 0.8, atol=1e-3)


def test_gamma_and_contrast_keep_the_order_of_gray_levels(new_key, volume, tokens):
    view, _ = augment(new_key(), volume, tokens, change(gamma=0.5, contrast=0.3))
    order = np.argsort(np.asarray(volume).ravel())
    assert np.all(np.diff(np.asarray(view).ravel()[order]) >= -1e-5)


def test_no_view_has_an_empty_border(new_key, tokens):
    """Exact zeros would be tokens on which LayerNorm multiplies gradients by a thousand."""
    volume = jnp.full(SHAPE, -1.5)
    for key in jax.random.split(new_key(), 10):
        view, _ = augment(key, volume, tokens, change(axial_shift=0.3, crop_scale=(0.5, 0.9)))
        np.testing.assert_allclose(view, -1.5, atol=1e-4)


def test_what_a_shift_brings_in_from_beyond_the_volume_is_padding(new_key, volume):
    """Half of the depth away, half of the token rows repeat the edge; padding moves as well."""
    config = change(axial_shift=0.5)
    covered = jnp.ones((2, 4, 4), bool).at[:, :, 3].set(False)
    rows = set()
    for key in jax.random.split(new_key(), 20):
        _, retina, kept = augment_covered(key, volume, jnp.ones((2, 4, 4), bool), covered, config)
        assert not np.asarray(kept)[:, :, 3].any()
        assert not np.asarray(retina & ~kept).any(), "padding is no retina"
        rows.add(int(np.asarray(kept)[0, :, 0].sum()))
    assert min(rows) <= 3 and max(rows) == 4


def test_batches_get_a_view_per_key_and_one_compilation(new_key, volume, tokens):
    keys = jax.random.split(new_key(), 3)
    many = jax.jit(jax.vmap(lambda k: augment(k, volume, tokens, AugmentConfig())[0]))
    views = many(keys)
    assert views.shape == (3, *SHAPE) and jnp.isfinite(views).all()
    one, _ = augment(keys[1], volume, tokens, AugmentConfig())
    np.testing.assert_allclose(views[1], one, atol=1e-4)
    assert not jnp.allclose(views[0], views[1])
    np.testing.assert_array_equal(many(keys), views)

"""RoPE-3D against the formula written out element by element."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.model.rope import apply_rope, rope_tables, segment_width, split_pairs

GRID = (2, 3, 4)
TOKENS = 24


def by_definition(x, token, variant, scale=(1.0, 1.0, 1.0)):
    """One head vector [h] in natural order, in float64."""
    k = 2 * ((len(x) // 3) // 2)
    depth, rest = divmod(token, GRID[1] * GRID[2])
    positions = (depth, *divmod(rest, GRID[2]))
    out = np.array(x, np.float64)
    for axis, position in enumerate(positions):
        for j in range(k):
            index = j % (k // 2) if variant == "tiled" else j // 2
            angle = position * scale[axis] * 10000.0 ** (-index / (k / 2))
            here = axis * k + j
            partner = -x[here + 1] if j % 2 == 0 else x[here - 1]
            out[here] = x[here] * math.cos(angle) + partner * math.sin(angle)
    return out


def encode_natural(x, tables):
    """Our encoding of [1, tokens, 1, h] in natural order, brought back to natural order."""
    h = x.shape[-1]
    encoded = np.array(apply_rope(split_pairs(x, 1), *tables))
    natural = np.empty_like(encoded)
    natural[..., 0::2], natural[..., 1::2] = encoded[..., : h // 2], encoded[..., h // 2 :]
    return natural


@pytest.mark.parametrize(("width", "segment"), [(64, 20), (32, 10), (128, 42), (80, 26), (12, 4)])
def test_segments_have_the_published_widths(width, segment):
    assert segment_width(width) == segment


@pytest.mark.parametrize("variant", ["tiled", "interleaved"])
@pytest.mark.parametrize("width", [12, 16, 64])
def test_encoding_equals_the_definition(new_key, variant, width):
    x = jax.random.normal(new_key(), (1, TOKENS, 1, width))
    found = encode_natural(x, rope_tables(GRID, width, variant))
    expected = [by_definition(np.array(x[0, n, 0]), n, variant) for n in range(TOKENS)]
    np.testing.assert_allclose(found[0, :, 0], expected, atol=2e-6)


def test_only_the_interleaved_variant_is_a_rotation(new_key):
    x = jax.random.normal(new_key(), (1, TOKENS, 1, 64))
    norms = {
        variant: np.linalg.norm(encode_natural(x, rope_tables(GRID, 64, variant)), axis=-1)
        for variant in ("tiled", "interleaved")
    }
    plain = np.linalg.norm(np.array(x), axis=-1)
    np.testing.assert_allclose(norms["interleaved"], plain, rtol=1e-5)
    assert np.abs(norms["tiled"] - plain).max() > 0.05


def test_positions_scale_with_spacing_per_sample(new_key):
    x = jnp.tile(jax.random.normal(new_key(), (1, TOKENS, 1, 16)), (2, 1, 1, 1))
    scale = jnp.array([[1.0, 1.0, 1.0], [2.0, 0.5, 1.5]])
    tables = rope_tables(GRID, 16, "tiled", position_scale=scale)
    found = encode_natural(x, tables)
    for sample in range(2):
        expected = [
            by_definition(np.array(x[sample, n, 0]), n, "tiled", scale[sample].tolist())
            for n in range(TOKENS)
        ]
        np.testing.assert_allclose(found[sample, :, 0], expected, atol=2e-6)


def test_reference_grid_stretches_the_last_row_and_column_to_its_edge():
    cos, sin = rope_tables((2, 24, 24), 64, "interleaved", reference_grid=16)
    small_cos, small_sin = rope_tables((2, 16, 16), 64, "interleaved")
    np.testing.assert_allclose(cos[0, -1], small_cos[0, -1], atol=1e-5)
    np.testing.assert_allclose(sin[0, -1], small_sin[0, -1], atol=1e-5)


def test_logits_depend_on_position_differences_only(new_key):
    """A property of rotations: q at a, k at b gives the same logit as both moved by one row."""
    q, k = (jax.random.normal(new_key(), (16,)) for _ in range(2))
    tables = rope_tables((1, 6, 1), 16, "interleaved")

    def everywhere(x):
        copies = jnp.tile(split_pairs(x, 1).reshape(1, 1, 1, 16), (1, 6, 1, 1))
        return np.array(apply_rope(copies, *tables))[0, :, 0]

    logits = everywhere(q) @ everywhere(k).T
    for offset in range(-3, 4):
        np.testing.assert_allclose(np.ptp(np.diagonal(logits, offset)), 0.0, atol=1e-4)

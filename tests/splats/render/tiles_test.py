"""The pair list against brute force over all pixels."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.render.tiles import build_pairs


def screen_gaussians(count, width, height, seed=0, elongation=3.0):
    """Random ellipses, some off the image, with their extents for alpha = 1/255."""
    random = np.random.default_rng(seed)
    means = random.uniform([-20, -20], [width + 20, height + 20], (count, 2))
    axes = np.exp(random.uniform(-0.5, elongation, (count, 2)))
    angle = random.uniform(0, np.pi, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    turn = turn.reshape(count, 2, 2)
    covariance = np.einsum("nij,nj,nkj->nik", turn, axes**2, turn) + 0.3 * np.eye(2)
    inverse = np.linalg.inv(covariance)
    opacities = random.uniform(0.004, 1.0, count)
    level = 2 * np.log(255 * opacities)
    extents = np.sqrt(level[:, None] * np.einsum("nii->ni", covariance))
    return {
        "means2d": means,
        "conics": np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1),
        "opacities": opacities,
        "extents": extents,
        "depths": random.uniform(1, 9, count),
    }


BUILD = jax.jit(build_pairs, static_argnames=("grid", "tile_size", "capacity"))


def build(gaussians, width, height, tile_size, capacity, visible=None):
    arrays = {k: jnp.asarray(v, jnp.float32) for k, v in gaussians.items()}
    count = arrays["depths"].shape[0]
    return BUILD(
        **arrays,
        visible=jnp.ones(count, bool) if visible is None else jnp.asarray(visible),
        grid=(-(-height // tile_size), -(-width // tile_size)),
        tile_size=tile_size,
        capacity=capacity,
    )


def listed(pairs, count):
    """Set of (tile, gaussian), and the list per tile."""
    offsets = np.asarray(pairs.tile_offsets)
    gaussian = np.asarray(pairs.pair_gaussian)
    per_tile = [gaussian[a:b] for a, b in itertools.pairwise(offsets)]
    assert np.all(gaussian[offsets[-1] :] == count)
    return {(t, g) for t, row in enumerate(per_tile) for g in row}, per_tile


def touched(gaussians, width, height, tile_size):
    """Brute force: (tile, gaussian) with a pixel of alpha >= 1/255, in the padded image."""
    columns, rows = -(-width // tile_size), -(-height // tile_size)
    y, x = np.meshgrid(
        np.arange(rows * tile_size) + 0.5, np.arange(columns * tile_size) + 0.5, indexing="ij"
    )
    result = set()
    for i, mean in enumerate(gaussians["means2d"]):
        a, b, c = gaussians["conics"][i]
        dx, dy = mean[0] - x, mean[1] - y
        alpha = gaussians["opacities"][i] * np.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy)
        hit = (alpha >= 1 / 255).reshape(rows, tile_size, columns, tile_size).any(axis=(1, 3))
        result |= {(int(t), i) for t in np.flatnonzero(hit)}
    return result


@pytest.mark.parametrize("tile_size", [8, 16])
@pytest.mark.parametrize("elongation", [1.0, 5.0])
def test_every_touched_tile_is_listed_and_few_others(tile_size, elongation):
    gaussians = screen_gaussians(300, 130, 70, elongation=elongation)
    pairs = build(gaussians, 130, 70, tile_size, 20_000)
    found, _ = listed(pairs, 300)
    expected = touched(gaussians, 130, 70, tile_size)
    assert expected <= found
    # A box of pixel centers can touch the ellipse between its pixels: a few percent more.
    assert len(found) <= 1.12 * len(expected)
    assert int(pairs.pairs_needed) >= len(found) and not bool(pairs.overflow)


def test_each_tile_lists_its_gaussians_from_near_to_far():
    gaussians = screen_gaussians(200, 64, 64)
    _, per_tile = listed(build(gaussians, 64, 64, 16, 8000), 200)
    depths = gaussians["depths"].astype(np.float32)
    assert all(np.all(np.diff(depths[row]) >= 0) for row in per_tile)
    assert max(len(row) for row in per_tile) > 20


def test_equal_depths_keep_the_order_of_their_index():
    gaussians = screen_gaussians(200, 64, 64)
    gaussians["depths"] = np.full(200, 3.0)
    _, per_tile = listed(build(gaussians, 64, 64, 16, 8000), 200)
    assert all(np.all(np.diff(row) > 0) for row in per_tile)


def test_invisible_gaussians_are_not_listed():
    gaussians = screen_gaussians(100, 64, 64)
    visible = np.arange(100) % 3 == 0
    found, _ = listed(build(gaussians, 64, 64, 16, 4000, visible), 100)
    assert {g for _, g in found} <= set(np.flatnonzero(visible))


def test_no_visible_gaussian_gives_an_empty_list():
    pairs = build(screen_gaussians(10, 64, 64), 64, 64, 16, 50, np.zeros(10, bool))
    assert np.all(np.asarray(pairs.tile_offsets) == 0)
    assert int(pairs.pairs_needed) == 0 and not bool(pairs.overflow)


def test_too_small_a_capacity_is_reported_and_the_reported_need_suffices():
    gaussians = screen_gaussians(300, 130, 70)
    enough = build(gaussians, 130, 70, 16, 20_000)
    capacity = 100
    for _ in range(4):
        pairs = build(gaussians, 130, 70, 16, capacity)
        if not bool(pairs.overflow):
            break
        assert int(pairs.pairs_needed) > capacity
        capacity = int(pairs.pairs_needed)
    assert capacity == int(enough.pairs_needed)
    assert bool(build(gaussians, 130, 70, 16, capacity - 1).overflow)
    assert listed(pairs, 300)[0] == listed(enough, 300)[0]


def test_packed_and_two_operand_sorts_agree(monkeypatch):
    gaussians = screen_gaussians(300, 130, 70)
    packed = build(gaussians, 130, 70, 16, 20_000)
    monkeypatch.setattr("splats.render.tiles.PACKED_KEY_LIMIT", 0)
    BUILD.clear_cache()
    plain = build(gaussians, 130, 70, 16, 20_000)
    jax.tree.map(np.testing.assert_array_equal, packed, plain)

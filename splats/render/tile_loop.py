"""Compositing of tiles by a loop in XLA; runs on every platform.

How the work is laid out. Tiles are dealt to L lanes so that lanes have about equal work. One step
of the loop composites the next K pairs of the current tile of each lane: arrays are [K, L, Q]. A
lane whose tile is exhausted, or whose every pixel has stopped, goes on to its next tile. Nothing is
padded to the busiest tile and no tile has a maximal number of pairs.

The stop rule needs no sequential test: V = product of all (1 - alpha), rejected ones included,
never rises, so "V after this pair > 1e-4" accepts exactly the prefix before the stop.

The derivative walks the pairs in the same direction. With g_k = v.c_k + v_alpha and w_k = alpha_k
T_k, the sum behind pair k is the total (known from the output) minus the running sum up to k. Sums
over pixels go through moments: the gradients of mean and conic are linear in the sums of dL/dsigma
times (1, x, y, x^2, x y, y^2), a product with a constant [Q, 6] matrix.

Vocabulary: L lanes, K pairs of a step, Q pixels of a tile, C channels, P pair slots, T tiles;
x, y are relative to the tile's center.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from splats.render import layout

# By default accelerators may multiply float32 with fewer bits.
HIGHEST = jax.lax.Precision.HIGHEST


def deal_tiles(tile_offsets: jax.Array, lanes: int) -> jax.Array:
    """Deals tiles to lanes, busiest first, in snake order; returns [lanes, M] tile numbers.

    M * lanes >= T; the filling is tile number T, which owns no pair.
    """
    counts = tile_offsets[1:] - tile_offsets[:-1]
    tiles = counts.shape[0]
    # Back and forth over the lanes, so that none gets the largest tile of every round.
    order = jnp.argsort(-counts, stable=True).astype(jnp.int32)
    rounds = -(-tiles // lanes)
    order = jnp.pad(order, (0, rounds * lanes - tiles), constant_values=tiles)
    table = order.reshape(rounds, lanes)
    backwards = (jnp.arange(rounds) % 2 == 1)[:, None]
    return jnp.where(backwards, table[:, ::-1], table).T


class _Chunk(NamedTuple):
    """What both directions need of K pairs of L tiles; [K, L, Q] unless said otherwise."""

    slots: jax.Array  # [K, L]
    valid: jax.Array  # [K, L]
    colors: jax.Array  # [K, L, C]
    delta_x: jax.Array
    delta_y: jax.Array
    geometry: jax.Array  # [K, L, 6 + C]
    unclamped: jax.Array  # o exp(-sigma), 0 where the pair is skipped.
    alpha: jax.Array
    after: jax.Array  # V after the pair.


def _evaluate_chunk(plan, packed, tile, position, end, running) -> _Chunk:
    steps = jnp.arange(plan.chunk, dtype=jnp.int32)
    slots = position[None, :] + steps[:, None]
    valid = slots < end[None, :]
    # Never out of range, by the rows that `pack` adds; "clip" saves the pass that filling takes.
    rows = packed.at[slots].get(mode="clip")
    center_x, center_y = layout.tile_centers(plan, tile)
    x, y = layout.pixel_offsets(plan)
    delta_x = (rows[:, :, 0] - center_x[None, :])[:, :, None] - x[None, None, :]
    delta_y = (rows[:, :, 1] - center_y[None, :])[:, :, None] - y[None, None, :]
    a, b, c = (rows[:, :, i, None] for i in (2, 3, 4))
    sigma = 0.5 * (a * delta_x * delta_x + c * delta_y * delta_y) + b * delta_x * delta_y
    unclamped = rows[:, :, 5, None] * jnp.exp(-sigma)
    # A negative sigma comes from rounding of a nearly singular conic, and would be brighter than o.
    kept = (sigma >= 0.0) & (unclamped >= layout.MIN_ALPHA) & valid[:, :, None]
    unclamped = jnp.where(kept, unclamped, 0.0)
    alpha = jnp.minimum(unclamped, layout.MAX_ALPHA)
    after = running[None] * jnp.cumprod(1.0 - alpha, axis=0)
    return _Chunk(
        slots, valid, rows[:, :, layout.GEOMETRY :], delta_x, delta_y, rows, unclamped, alpha, after
    )


class _Lanes(NamedTuple):
    """Where each lane is: [L] int32."""

    turn: jax.Array  # Index into the lane's list of tiles.
    tile: jax.Array
    position: jax.Array  # Next pair slot.
    end: jax.Array  # End of the tile's pairs.


class _Schedule(NamedTuple):
    table: jax.Array  # [L, M + 1] tile numbers.
    offsets: jax.Array  # [T + 2], the imaginary tile T is empty.

    def at(self, turn) -> _Lanes:
        tile = jnp.take_along_axis(self.table, turn[:, None], axis=1)[:, 0]
        return _Lanes(turn, tile, self.offsets[tile], self.offsets[tile + 1])

    def advance(self, lanes: _Lanes, chunk: int, opaque) -> tuple[_Lanes, jax.Array]:
        """The lanes after a step, and which of them begin another tile."""
        position = lanes.position + chunk
        done = (position >= lanes.end) | opaque
        last = self.table.shape[1] - 1
        following = self.at(jnp.minimum(lanes.turn + 1, last))
        stay = lanes._replace(position=position)
        moved = jax.tree.map(lambda new, old: jnp.where(done, new, old), following, stay)
        return moved, done


def _schedule(plan, tile_offsets) -> _Schedule:
    table = deal_tiles(tile_offsets, plan.lanes)
    tiles = tile_offsets.shape[0] - 1
    # One more turn: a lane that has finished stays at the imaginary tile T, which is empty.
    table = jnp.pad(table, ((0, 0), (0, 1)), constant_values=tiles)
    return _Schedule(table, jnp.pad(tile_offsets, (0, 1), mode="edge"))


def forward_tiles(plan, packed, tile_offsets):
    """Final transmittance [T, Q] and color without background [T, C, Q]."""
    schedule = _schedule(plan, tile_offsets)
    tiles, pixels = tile_offsets.shape[0] - 1, plan.tile_size**2
    channels = plan.channels
    lane_shape = (plan.lanes, pixels)

    def working(state):
        return jnp.any(state[0].position < state[0].end)

    def step(state):
        lanes, running, left, color, all_left, all_color = state
        chunk = _evaluate_chunk(plan, packed, lanes.tile, lanes.position, lanes.end, running)
        accepted = chunk.after > layout.STOP_TRANSMITTANCE
        # Weight = alpha T with T the transmittance before the pair, which is after / (1 - alpha).
        weights = jnp.where(accepted, chunk.alpha * (chunk.after / (1.0 - chunk.alpha)), 0.0)
        # V never rises, so the smallest accepted one is that of the last accepted pair.
        left = jnp.minimum(left, jnp.min(jnp.where(accepted, chunk.after, 1.0), axis=0))
        color = color + jnp.sum(weights[:, :, None, :] * chunk.colors[:, :, :, None], axis=0)
        running = chunk.after[-1]
        # At every step: the last write of a tile is its result, and no lane waits for another.
        all_left = all_left.at[lanes.tile].set(left)
        all_color = all_color.at[lanes.tile].set(color)
        opaque = jnp.all(running <= layout.STOP_TRANSMITTANCE, axis=1)
        lanes, fresh = schedule.advance(lanes, plan.chunk, opaque)
        running = jnp.where(fresh[:, None], 1.0, running)
        left = jnp.where(fresh[:, None], 1.0, left)
        color = jnp.where(fresh[:, None, None], 0.0, color)
        return lanes, running, left, color, all_left, all_color

    ones = jnp.ones(lane_shape, packed.dtype)
    start = (
        schedule.at(jnp.zeros(plan.lanes, jnp.int32)),
        ones,
        ones,
        jnp.zeros((plan.lanes, channels, pixels), packed.dtype),
        jnp.ones((tiles + 1, pixels), packed.dtype),
        jnp.zeros((tiles + 1, channels, pixels), packed.dtype),
    )
    end = jax.lax.while_loop(working, step, start)
    return end[4][:tiles], end[5][:tiles]


def backward_tiles(plan, packed, tile_offsets, image_cotangent, alpha_cotangent, total):
    """Per pair slot [P, 6 + C (+ 2)]: moments of dL/dsigma, color gradients (absolute sums)."""
    schedule = _schedule(plan, tile_offsets)
    pixels = plan.tile_size**2
    channels = plan.channels
    capacity = packed.shape[0] - plan.chunk
    basis = jnp.asarray(layout.moment_basis(plan))
    # A row for the imaginary tile T, at which finished lanes compute what nobody reads.
    pad = ((0, 1), (0, 0))
    image_cotangent = jnp.pad(image_cotangent, (*pad, (0, 0)))
    alpha_cotangent, total = jnp.pad(alpha_cotangent, pad), jnp.pad(total, pad)

    def working(state):
        return jnp.any(state[0].position < state[0].end)

    def step(state):
        lanes, running, front, rows = state
        chunk = _evaluate_chunk(plan, packed, lanes.tile, lanes.position, lanes.end, running)
        v, v_alpha = image_cotangent[lanes.tile], alpha_cotangent[lanes.tile]
        accepted = chunk.after > layout.STOP_TRANSMITTANCE
        rest = 1.0 - chunk.alpha
        before = jnp.where(accepted, chunk.after / rest, 0.0)
        weights = chunk.alpha * before
        g = v_alpha[None] + sum(
            chunk.colors[:, :, i, None] * v[None, :, i, :] for i in range(channels)
        )
        front_after = front[None] + jnp.cumsum(weights * g, axis=0)
        behind = total[lanes.tile][None] - front_after
        alpha_grad = before * g - behind / rest
        # Where alpha is clamped to 0.99 it does not depend on the Gaussian any more.
        free = accepted & (chunk.unclamped <= layout.MAX_ALPHA)
        sigma_grad = jnp.where(free, -chunk.alpha * alpha_grad, 0.0)
        columns = [
            jnp.einsum("klq,qm->klm", sigma_grad, basis, precision=HIGHEST),
            jnp.einsum("klq,lcq->klc", weights, v, precision=HIGHEST),
        ]
        if plan.absolute:
            columns.append(_absolute_sums(chunk, sigma_grad))
        targets = jnp.where(chunk.valid, chunk.slots, capacity)
        rows = rows.at[targets].set(jnp.concatenate(columns, axis=-1), mode="drop")
        opaque = jnp.all(chunk.after[-1] <= layout.STOP_TRANSMITTANCE, axis=1)
        lanes, fresh = schedule.advance(lanes, plan.chunk, opaque)
        running = jnp.where(fresh[:, None], 1.0, chunk.after[-1])
        front = jnp.where(fresh[:, None], 0.0, front_after[-1])
        return lanes, running, front, rows

    width = layout.MOMENTS + channels + (2 if plan.absolute else 0)
    start = (
        schedule.at(jnp.zeros(plan.lanes, jnp.int32)),
        jnp.ones((plan.lanes, pixels), packed.dtype),
        jnp.zeros((plan.lanes, pixels), packed.dtype),
        jnp.zeros((capacity, width), packed.dtype),
    )
    return jax.lax.while_loop(working, step, start)[3]


def _absolute_sums(chunk, sigma_grad):
    """Sums over pixels [K, L, 2] of the absolute gradient of the screen mean."""
    a, b, c = (chunk.geometry[:, :, i, None] for i in (2, 3, 4))
    along_x = sigma_grad * (a * chunk.delta_x + b * chunk.delta_y)
    along_y = sigma_grad * (b * chunk.delta_x + c * chunk.delta_y)
    return jnp.stack(
        [jnp.sum(jnp.abs(along_x), axis=-1), jnp.sum(jnp.abs(along_y), axis=-1)], axis=-1
    )

"""Front-to-back compositing of the pair list, with a hand-written derivative.

Rules (gsplat): sigma = (a dx^2 + c dy^2) / 2 + b dx dy with (dx, dy) = mean - pixel center; alpha =
min(0.99, o exp(-sigma)), skipped below 1/255 or where sigma < 0; a pixel stops before the first
Gaussian that would bring its transmittance T to 1e-4 or less.

The sums over pixels are left to a backend (`tile_loop` in XLA, `mosaic` as a GPU kernel); packing
the pairs and turning pixel moments into gradients is common to both.

Vocabulary: C channels, P pair slots, T tiles, N Gaussians.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from splats.render import layout, tile_loop


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def composite(
    plan: layout.Plan,
    means2d: jax.Array,
    conics: jax.Array,
    opacities: jax.Array,
    colors: jax.Array,
    background: jax.Array,
    absgrad_probe: jax.Array,
    pair_gaussian: jax.Array,
    tile_offsets: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Composites pairs into an image; differentiable in all float arguments.

    Args:
      plan: static layout.
      means2d: [N, 2] pixels.
      conics: [N, 3].
      opacities: [N].
      colors: [N, C] any channels, for instance red, green, blue and depth.
      background: [C].
      absgrad_probe: [N, 2], ignored; its cotangent is the sum over pixels of the absolute
        gradient of the means if `plan.absolute`, else zero.
      pair_gaussian: [P] int32, N in unused slots.
      tile_offsets: [T + 1] int32.

    Returns:
      image [height, width, C] and accumulated alpha [height, width].
    """
    outputs, _ = _forward(
        plan, means2d, conics, opacities, colors, background, absgrad_probe, pair_gaussian,
        tile_offsets,
    )  # fmt: skip
    return outputs


def _forward(
    plan, means2d, conics, opacities, colors, background, absgrad_probe, pair_gaussian, tile_offsets
):
    del absgrad_probe
    if plan.backend != "xla":
        from splats.render.mosaic_kernels import CHUNK

        pair_gaussian, tile_offsets = layout.align_pairs(
            pair_gaussian, tile_offsets, opacities.shape[0], CHUNK
        )
    packed = layout.pack(plan, means2d, conics, opacities, colors, pair_gaussian)
    left, color = _backend(plan).forward_tiles(plan, packed, tile_offsets)
    color = color + left[:, None, :] * background[None, :, None]
    image = layout.to_image(plan, color)
    alpha = 1.0 - layout.to_image(plan, left[:, None, :])[..., 0]
    residuals = (packed, opacities, background, pair_gaussian, tile_offsets, left, color)
    return (image, alpha), residuals


def _backward(plan, residuals, cotangents):
    packed, opacities, background, pair_gaussian, tile_offsets, left, color = residuals
    image_cotangent = layout.to_tiles(plan, cotangents[0])
    alpha_cotangent = layout.to_tiles(plan, cotangents[1][:, :, None])[:, 0, :]
    # Cotangent times output, per pixel: what a pair sees behind itself is this minus what lies
    # before it, so that the derivative can walk front to back like the image.
    total = jnp.sum(image_cotangent * color, axis=1) + alpha_cotangent * (1.0 - left)
    rows = _backend(plan).backward_tiles(
        plan, packed, tile_offsets, image_cotangent, alpha_cotangent, total
    )
    background_grad = jnp.sum(left[:, None, :] * image_cotangent, axis=(0, 2))
    per_pair = _pair_gradients(plan, packed, rows, tile_offsets)
    count = opacities.shape[0]
    # A Gaussian has a pair in each tile that it touches. Unused slots name row N and fall away.
    summed = jax.ops.segment_sum(per_pair, pair_gaussian, num_segments=count)
    channels = background.shape[0]
    absgrad = summed[:, 6 + channels :] if plan.absolute else jnp.zeros((count, 2), packed.dtype)
    return (
        summed[:, 0:2],
        summed[:, 2:5],
        summed[:, 5],
        summed[:, 6 : 6 + channels],
        background_grad,
        absgrad,
        None,
        None,
    )


composite.defvjp(_forward, _backward)


def _backend(plan):
    if plan.backend == "xla":
        return tile_loop
    # Only here, since what it needs of JAX takes half a second to import.
    from splats.render import mosaic

    return mosaic


def _pair_gradients(plan, packed, rows, tile_offsets):
    """Moments to gradients, per slot [P, 6 + C (+ 2)]: mean, conic, opacity, colors, absolute."""
    capacity = rows.shape[0]
    slots = jnp.arange(capacity, dtype=jnp.int32)
    tile = jnp.searchsorted(tile_offsets, slots, side="right", method="scan_unrolled")
    tile = tile.astype(jnp.int32) - 1
    center_x, center_y = layout.tile_centers(plan, jnp.maximum(tile, 0))
    mean_x, mean_y, a, b, c, opacity = (packed[:capacity, i] for i in range(6))
    # With d = mean - pixel, sums of dL/dsigma times d, d d^T are polynomials of the mean in the
    # moments of the pixels: the kernels need not know the Gaussian's place.
    x, y = mean_x - center_x, mean_y - center_y
    m, m_x, m_y, m_xx, m_xy, m_yy = (rows[:, i] for i in range(layout.MOMENTS))
    sum_dx, sum_dy = x * m - m_x, y * m - m_y
    geometry = jnp.stack(
        [
            a * sum_dx + b * sum_dy,
            b * sum_dx + c * sum_dy,
            0.5 * (x * x * m - 2 * x * m_x + m_xx),
            x * y * m - x * m_y - y * m_x + m_xy,
            0.5 * (y * y * m - 2 * y * m_y + m_yy),
            # dL/do = sum of dL/dalpha exp(-sigma) = -(sum of dL/dsigma) / o.
            -m / jnp.where(opacity > 0.0, opacity, 1.0),
        ],
        axis=-1,
    )
    return jnp.concatenate([geometry, rows[:, layout.MOMENTS :]], axis=-1)

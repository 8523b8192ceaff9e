"""From Gaussians and a camera to an image: projection, colors, pairs, compositing.

Gaussians are a mapping of arrays with a common first axis N:
  means [N, 3] world; scales [N, 3] logarithms; quats [N, 4] wxyz of any length;
  opacities [N] logits; sh0 [N, 1, 3]; shN [N, B - 1, 3] (may be absent or empty);
  alive [N] bool (optional): rows that are not alive are not drawn and get zero gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from splats.render import harmonics, projection, tiles
from splats.render.camera import Camera, RenderSettings
from splats.render.rasterize import rasterize, resolve_tile_size

# Divides the expected depth: where nothing was drawn it is 0 instead of 0 / 0.
MIN_ACCUMULATED_ALPHA = 1e-10


class Screen(NamedTuple):
    """Gaussians as one camera sees them; leaves have the leading axis of Gaussians."""

    means2d: jax.Array  # [N, 2] pixels
    conics: jax.Array  # [N, 3]
    channels: jax.Array  # [N, 3 or 4] color and, on request, depth
    opacities: jax.Array  # [N]
    extents: jax.Array  # [N, 2]
    depths: jax.Array  # [N]
    visible: jax.Array  # [N] bool


class Composite(NamedTuple):
    """What the pixels of one view show."""

    image: jax.Array  # [H, W, 3], not clipped
    alpha: jax.Array  # [H, W] accumulated alpha
    depth: jax.Array | None  # [H, W] expected camera z, if the settings ask for it
    means2d: jax.Array  # [N, 2] with the probe added
    pairs: tiles.PairList


class RenderOutput(NamedTuple):
    """One rendered view."""

    image: jax.Array  # [H, W, 3], not clipped.
    alpha: jax.Array  # [H, W] accumulated alpha.
    depth: jax.Array | None  # [H, W] expected camera z, if the settings ask for it.
    radii: jax.Array  # [N, 2] int32 pixels, 0 where culled.
    visible: jax.Array  # [N] bool.
    means2d: jax.Array  # [N, 2] pixels.
    overflow: jax.Array  # bool: the image is incomplete, `pair_capacity` is too small.
    pairs_needed: jax.Array  # int32: slots that this view needs (a lower bound on overflow).


def camera_center(world_to_camera: jax.Array) -> jax.Array:
    """Center [3] of a camera in world coordinates: -R^T t."""
    return -jnp.einsum(
        "ji,j->i",
        world_to_camera[:3, :3],
        world_to_camera[:3, 3],
        precision=jax.lax.Precision.HIGHEST,
    )


def render(
    gaussians: Mapping[str, jax.Array],
    camera: Camera,
    settings: RenderSettings,
    *,
    background: jax.Array | None = None,
    active_degree: jax.Array | int | None = None,
    means2d_probe: jax.Array | None = None,
    absgrad_probe: jax.Array | None = None,
) -> RenderOutput:
    """Renders one view; differentiable in the Gaussians, the camera and the background.

    Args:
      gaussians: see the module's docstring.
      camera: one camera; map over cameras with `jax.vmap` or `jax.lax.scan`.
      settings: static; hashable, so it can be a static argument of `jax.jit`.
      background: [3], black when absent.
      active_degree: harmonic bands above it are ignored; may be traced.
      means2d_probe: optional zeros [N, 2] added to the screen means: the gradient with respect to
        it is the screen gradient that adaptive density control thresholds.
      absgrad_probe: optional zeros [N, 2] whose gradient is the sum over pixels of absolute
        screen gradients.
    """
    screen, radii = project_to_screen(gaussians, camera, settings, active_degree)
    if background is None:
        background = jnp.zeros(3, screen.channels.dtype)
    drawn = composite_screen(screen, background, settings, means2d_probe, absgrad_probe)
    return RenderOutput(
        image=drawn.image,
        alpha=drawn.alpha,
        depth=drawn.depth,
        radii=jnp.where(screen.visible[:, None], radii, 0),
        visible=screen.visible,
        means2d=drawn.means2d,
        overflow=drawn.pairs.overflow,
        pairs_needed=drawn.pairs.pairs_needed,
    )


def project_to_screen(
    gaussians: Mapping[str, jax.Array],
    camera: Camera,
    settings: RenderSettings,
    active_degree: jax.Array | int | None = None,
) -> tuple[Screen, jax.Array]:
    """The first half of `render`, which touches no pixel; also radii [N, 2] before culling."""
    opacities = jax.nn.sigmoid(gaussians["opacities"])
    projected = projection.project(
        gaussians["means"],
        gaussians["quats"],
        jnp.exp(gaussians["scales"]),
        camera,
        width=settings.width,
        height=settings.height,
        opacities=opacities,
        near=settings.near,
        far=settings.far,
        eps2d=settings.eps2d,
        antialiased=settings.antialiased,
        camera_model=settings.camera_model,
    )
    visible = projected.visible
    if "alive" in gaussians:
        visible &= gaussians["alive"]
    if settings.antialiased:
        # The low-pass filter spread the Gaussian over more pixels: as much light, fainter.
        opacities = opacities * projected.compensations
    screen = Screen(
        means2d=projected.means2d,
        conics=projected.conics,
        channels=_channels(gaussians, camera, projected, settings, active_degree),
        opacities=opacities,
        extents=projected.extents,
        depths=projected.depths,
        visible=visible,
    )
    return screen, projected.radii


def composite_screen(
    screen: Screen,
    background: jax.Array,
    settings: RenderSettings,
    means2d_probe: jax.Array | None = None,
    absgrad_probe: jax.Array | None = None,
) -> Composite:
    """The second half of `render`: sorts the Gaussians into tiles and blends them."""
    tile_size = resolve_tile_size(settings.tile_size)
    means2d = screen.means2d
    # Added after projection: its gradient is what the pixels feel of a moved center on the screen,
    # without what sizes and colors feel of a moved mean in the world.
    if means2d_probe is not None:
        means2d = means2d + means2d_probe
    # The list only chooses what is drawn; it is no part of the function that is differentiated.
    pairs = tiles.build_pairs(
        *jax.lax.stop_gradient(
            (screen.means2d, screen.conics, screen.opacities, screen.extents, screen.depths)
        ),
        screen.visible,
        grid=(-(-settings.height // tile_size), -(-settings.width // tile_size)),
        tile_size=tile_size,
        capacity=settings.pair_capacity,
    )
    if settings.render_depth:
        # Depth is composited as a fourth color, before a background at depth 0.
        background = jnp.concatenate([background, jnp.zeros(1, background.dtype)])
    image, alpha = rasterize(
        means2d,
        screen.conics,
        screen.channels,
        screen.opacities,
        background,
        pairs.pair_gaussian,
        pairs.tile_offsets,
        width=settings.width,
        height=settings.height,
        tile_size=tile_size,
        backend=settings.backend,
        absgrad_probe=absgrad_probe,
        chunk=settings.chunk,
        lanes=settings.lanes,
    )
    depth = None
    if settings.render_depth:
        # Blended depth over accumulated alpha: the mean over what was hit.
        depth = image[:, :, 3] / jnp.maximum(alpha, MIN_ACCUMULATED_ALPHA)
    return Composite(image[:, :, :3], alpha, depth, means2d, pairs)


def _channels(gaussians, camera, projected, settings, active_degree) -> jax.Array:
    """Per-Gaussian channels [N, 3 or 4]."""
    coefficients = gaussians["sh0"]
    if gaussians.get("shN") is not None and gaussians["shN"].shape[1]:
        coefficients = jnp.concatenate([coefficients, gaussians["shN"]], axis=1)
    center = camera_center(camera.world_to_camera)
    channels = harmonics.view_colors(gaussians["means"], center, coefficients, active_degree)
    if settings.render_depth:
        channels = jnp.concatenate([channels, projected.depths[:, None]], axis=1)
    return channels

"""Projected Gaussians travel from the devices that own them to the devices that draw them.

The scheme of Grendel (Zhao et al., "On Scaling Up 3D Gaussian Splatting Training", 2024) with
compaction: a device projects its Gaussians for all views of its group, packs the visible ones of
each view into the first rows of a buffer of static size, and one all-to-all hands each device the
buffers of its own views. Rows keep the order of their owners and, within one, of their slots: that
is the order of all slots, so that Gaussians of equal depth are blended in the order of one device.
The transpose of the exchange brings the gradients back.

Vocabulary: G devices of a group (the fsdp axis); V = G b views of the group, b of each device;
n = N / G Gaussians of each device; C rows of a buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from splats.gaussians.population import Gaussians
from splats.render import RenderSettings
from splats.render.camera import Camera
from splats.render.renderer import Screen, project_to_screen

GROUP = "fsdp"
SMOOTH = ("means2d", "conics", "opacities", "channels")  # what gradients flow back through


class Parcel(NamedTuple):
    """Gaussians that one view sees; the first `count` rows hold them, the others repeat some row.

    Attributes:
      smooth: float32 [C, F]: means2d, conics, opacities, channels, and the absgrad probe if any.
      fixed: float32 [C, 3], extents and depths.
      count: int32 scalar, Gaussians that are visible; beyond C the parcel is incomplete.
    """

    smooth: jax.Array
    fixed: jax.Array
    count: jax.Array


class Arrival(NamedTuple):
    """What a device has received; leaves have the leading axis b of its views.

    Attributes:
      screen: leaves [b, G C, ...].
      absgrad: [b, G C, 2], or None without that probe.
    """

    screen: Screen
    absgrad: jax.Array | None


def rows_per_shard(rows: int, shard: int, shards: int) -> int:
    """C: this shard's part of the rows that a device receives of a view; never above its n."""
    return min(shard, -(-rows // shards))


def send(
    gaussians: Gaussians,
    camera_of_view: Callable[[jax.Array], Camera],
    views: jax.Array,
    probes: dict[str, jax.Array],
    settings: RenderSettings,
    active_degree: jax.Array,
    rows: int,
) -> tuple[Parcel, jax.Array]:
    """Projects this device's Gaussians [n] for the views of its group, one view at a time.

    Projections are computed again on the way back, so that no more than the parcels is kept.

    Args:
      views: int32 [V].
      probes: zeros [V, n, 2] under the names means2d or absgrad, or empty.
      rows: C.

    Returns:
      Parcels with the leading axis V, and float32 [n], number of views that see each Gaussian.
    """

    def one(seen: jax.Array, inputs: tuple[jax.Array, dict[str, jax.Array]]):
        view, view_probes = inputs
        screen = project_to_screen(gaussians, camera_of_view(view), settings, active_degree)[0]
        return seen + screen.visible.astype(jnp.float32), pack(screen, view_probes, rows)

    start = jnp.zeros(gaussians["opacities"].shape)
    seen, parcels = jax.lax.scan(jax.checkpoint(one, prevent_cse=False), start, (views, probes))
    return parcels, seen


def pack(screen: Screen, probes: dict[str, jax.Array], rows: int) -> Parcel:
    """The visible Gaussians of a view [n] in the first of `rows` rows, in the order of slots."""
    if "means2d" in probes:
        screen = screen._replace(means2d=screen.means2d + probes["means2d"])
    smooth = [_columns(getattr(screen, name)) for name in SMOOTH]
    if "absgrad" in probes:
        smooth.append(probes["absgrad"])
    # Apart from the rest, so that no gradients of them travel back.
    fixed = jax.lax.stop_gradient([screen.extents, _columns(screen.depths)])
    # Rows that are not needed repeat the last Gaussian: finite values that nothing reads.
    last = screen.visible.shape[0] - 1
    (source,) = jnp.nonzero(screen.visible, size=rows, fill_value=last)
    return Parcel(
        jnp.concatenate(smooth, axis=1)[source],
        jnp.concatenate(fixed, axis=1)[source],
        jnp.sum(screen.visible, dtype=jnp.int32),
    )


def _columns(leaf: jax.Array) -> jax.Array:
    return leaf if leaf.ndim == 2 else leaf[:, None]


def exchange(parcels: Parcel, channels: int) -> tuple[Arrival, jax.Array]:
    """Inside `shard_map`: parcels [V, C, ...] of the views of the group go to their devices.

    Args:
      channels: of the screen, 3 or 4.

    Returns:
      The arrival, and a bool scalar: some parcel is incomplete.
    """
    rows = parcels.smooth.shape[1]
    # [G b, C] to [b, G C]: the parcels of a view end up side by side, in the order of their owners.
    swap = partial(jax.lax.all_to_all, axis_name=GROUP, split_axis=0, concat_axis=1, tiled=True)
    smooth, fixed, counts = swap(parcels.smooth), swap(parcels.fixed), swap(parcels.count[:, None])
    means2d, conics, opacities, colors, absgrad = jnp.split(smooth, (2, 5, 6, 6 + channels), axis=2)
    visible = jnp.arange(rows)[None, None, :] < counts[:, :, None]
    screen = Screen(
        means2d=means2d,
        conics=conics,
        channels=colors,
        opacities=opacities[:, :, 0],
        extents=fixed[:, :, :2],
        depths=fixed[:, :, 2],
        visible=visible.reshape(visible.shape[0], -1),
    )
    return Arrival(screen, absgrad if absgrad.shape[2] else None), jnp.any(counts > rows)

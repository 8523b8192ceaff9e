"""Rendering the views of a batch and comparing them with their photographs.

A batch is a few views. Each gives *sums* (of errors, and what they are divided by), so that views,
micro-batches and devices can be added in any order. `ViewComparison` holds what is static.

Vocabulary: B views, N Gaussians, H, W image size; `seen` counts the views that a Gaussian is in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from splats.config import LossConfig
from splats.data.views import Arrays, camera_of
from splats.gaussians.population import Gaussians
from splats.losses import bilateral, depth
from splats.losses.photometric import loss_sums, opacity_error
from splats.render import RenderSettings, render
from splats.render.camera import Camera
from training.loss import Total

Probes = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ViewSums:
    """What the views of a batch add up to.

    Attributes:
      totals: l1, ssim, depth and alpha where they are supervised, as sum and weight; besides them
        `pairs` and `visible`, for the log.
      seen: float32 [N], number of views that each Gaussian is in.
      overflow: bool scalar, some view needed more pairs than there is room for.
      incomplete: bool scalar, some view sees more Gaussians of a shard than it could be sent.
    """

    totals: dict[str, Total]
    seen: jax.Array
    overflow: jax.Array
    incomplete: jax.Array

    def __add__(self, other: ViewSums) -> ViewSums:
        return ViewSums(
            jax.tree.map(jnp.add, self.totals, other.totals),
            self.seen + other.seen,
            self.overflow | other.overflow,
            self.incomplete | other.incomplete,
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BatchInputs:
    """The views of a batch; leaves have the leading axis B.

    Attributes:
      view: int32 [B], rows of the resident arrays.
      background: float32 [B, 3].
      probes: zeros [B, N, 2] under the names means2d or absgrad, or empty.
    """

    view: jax.Array
    background: jax.Array
    probes: Probes


def random_backgrounds(update_key: jax.Array, positions: jax.Array) -> jax.Array:
    """A color [B, 3] behind each view, by its position in the stream and nothing else.

    What is transparent can then not be learned as black; and the same update has the same colors
    on any number of devices and micro-batches.
    """

    def one(position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(update_key, position), (3,))

    return jax.vmap(one)(positions)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SceneModel:
    """What is drawn, and what it is compared with.

    Attributes:
      params: `gaussians` (leaves [N, ...]) and the corrections per view, where there are any.
      alive: bool [N].
      active_degree: int32 scalar, of the harmonics.
      resident: photographs and cameras of the training views, see `splats.data.views`.
    """

    params: dict[str, Any]
    alive: jax.Array
    active_degree: jax.Array
    resident: Arrays

    @property
    def gaussians(self) -> Gaussians:
        """As the renderer takes them."""
        return self.params["gaussians"] | {"alive": self.alive}

    def camera(self, view: jax.Array) -> Camera:
        """Of a row of the resident arrays, with its pose correction."""
        return camera_of(self.resident, view, self.params.get("poses"))


@dataclass(frozen=True)
class ViewComparison:
    """Static settings of the comparison."""

    settings: RenderSettings
    losses: LossConfig

    def compare(
        self,
        image: jax.Array,
        alpha: jax.Array,
        depth_map: jax.Array | None,
        model: SceneModel,
        view: jax.Array,
        background: jax.Array,
    ) -> dict[str, Total]:
        """Errors of one rendered view against its photograph.

        Args:
          image: [H, W, 3], rendered before `background` [3].
          alpha: [H, W], accumulated opacity of the rendering.
        """
        params, resident = model.params, model.resident
        # Photographs stay uint8 on the devices, a quarter of the memory, until a view is drawn.
        photograph = resident["images"][view].astype(jnp.float32) / 255.0
        opaque = None
        if "alpha" in resident:
            opaque = resident["alpha"][view].astype(jnp.float32) / 255.0
            # The same background as in the rendering, or it would have to be painted.
            photograph = photograph + (1.0 - opaque)[:, :, None] * background[None, None, :]
        if "bilateral" in params:
            image = bilateral.apply_grid(params["bilateral"][view], image)
        mask = resident["valid"][view].astype(jnp.float32) if "valid" in resident else None
        sums = loss_sums(image, photograph, mask)
        totals = {name: Total(*term) for name, term in sums.items()}
        if opaque is not None and self.losses.alpha:
            totals["alpha"] = Total(*opacity_error(alpha, opaque, mask))
        if self.losses.depth:
            if depth_map is None:
                raise ValueError("depth supervision needs RenderSettings.render_depth")
            totals["depth"] = Total(
                *depth.disparity_error(
                    depth_map,
                    model.camera(view),
                    resident["points"][view],
                    resident["points_present"][view],
                )
            )
        return totals

    def one_view(self, model: SceneModel, inputs: BatchInputs) -> ViewSums:
        """Renders and compares one view; leaves of `inputs` have no leading axis."""
        output = render(
            model.gaussians,
            model.camera(inputs.view),
            self.settings,
            background=inputs.background,
            active_degree=model.active_degree,
            means2d_probe=inputs.probes.get("means2d"),
            absgrad_probe=inputs.probes.get("absgrad"),
        )
        totals = self.compare(
            output.image, output.alpha, output.depth, model, inputs.view, inputs.background
        )
        return with_counts(totals, output.visible, output.pairs_needed, output.overflow)

    def all_views(self, model: SceneModel, inputs: BatchInputs) -> ViewSums:
        """Sums over the leading axis of `inputs`, one view at a time."""
        return sum_over_views(lambda one: self.one_view(model, one), inputs)


def with_counts(
    totals: dict[str, Total], visible: jax.Array, pairs: jax.Array, overflow: jax.Array
) -> ViewSums:
    """The sums of one view; nothing of the counts is differentiated."""
    one = jnp.float32(1.0)
    seen = visible.astype(jnp.float32)
    counts = {
        "pairs": Total(pairs.astype(jnp.float32), one),
        "visible": Total(jnp.sum(seen), one),
    }
    return ViewSums(totals | counts, seen, overflow, jnp.zeros((), bool))


def sum_over_views(one: Callable[[Any], ViewSums], inputs: Any) -> ViewSums:
    """`one` applied to each row of `inputs` in turn, added up.

    One view after the other, because side by side their pixels would need memory for all of them.
    """
    views = jax.tree.leaves(inputs)[0].shape[0]
    # The first view is the start of the sum: zeros would have to be shaped like its result.
    first = one(jax.tree.map(lambda leaf: leaf[0], inputs))
    if views == 1:
        return first
    rest = jax.tree.map(lambda leaf: leaf[1:], inputs)
    total, _ = jax.lax.scan(lambda carry, row: (carry + one(row), None), first, rest)
    return total

"""The views of a batch spread over the devices of the mesh.

Two ways, with the same result as one device:

* every device holds all Gaussians and takes its own views; sums and gradients are added;
* Gaussians are sharded too (Zhao et al., "On Scaling Up 3D Gaussian Splatting Training", Grendel):
  every device projects its shard for the views of its whole group, an all-to-all hands each device
  the projections of all Gaussians for its own views, and it composites those. The transpose of the
  exchange brings the gradients back. About 13 floats per Gaussian and view travel.

Vocabulary: G devices of a group (the fsdp axis), b views per device, n = N / G Gaussians per
device.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from splats.render.renderer import Screen, composite_screen, project_to_screen
from splats.view_sums import BatchInputs, ViewComparison, ViewSums, sum_over_views, with_counts
from splats.views import Arrays, camera_of

BATCH_AXES = ("data", "fsdp")


def _exchanged_views(
    comparison: ViewComparison,
    params: dict[str, Any],
    alive: jax.Array,
    active_degree: jax.Array,
    resident: Arrays,
    inputs: BatchInputs,
) -> ViewSums:
    """On one device: its Gaussians [n], its views [b]; `seen` of its Gaussians."""
    settings, gaussians = comparison.settings, params["gaussians"] | {"alive": alive}
    group_views = jax.lax.all_gather(inputs.view, "fsdp", tiled=True)
    cameras = jax.vmap(lambda view: camera_of(resident, view, params.get("poses")))
    screens = jax.vmap(
        lambda camera: project_to_screen(gaussians, camera, settings, active_degree)[0]
    )(cameras(group_views))
    seen = jnp.sum(screens.visible.astype(jnp.float32), axis=0)
    exchange = partial(
        jax.lax.all_to_all, axis_name="fsdp", split_axis=0, concat_axis=1, tiled=True
    )
    screens = jax.tree.map(exchange, screens)  # [G b, n, ...] -> [b, N, ...]

    def one(rows: tuple[BatchInputs, Screen]) -> ViewSums:
        view_inputs, screen = rows
        camera = camera_of(resident, view_inputs.view, params.get("poses"))
        probes = view_inputs.probes
        drawn = composite_screen(
            screen,
            view_inputs.background,
            settings,
            probes.get("means2d"),
            probes.get("absgrad"),
        )
        totals = comparison.compare(
            drawn.image, drawn.depth, camera, params, resident, view_inputs.view
        )
        return with_counts(totals, screen.visible, drawn.pairs.pairs_needed, drawn.pairs.overflow)

    sums = sum_over_views(one, (inputs, screens))
    return ViewSums(sums.totals, seen, sums.overflow)


def _added_over(axes: tuple[str, ...], sums: ViewSums, seen_axes: tuple[str, ...]) -> ViewSums:
    return ViewSums(
        jax.tree.map(lambda leaf: jax.lax.psum(leaf, axes), sums.totals),
        jax.lax.psum(sums.seen, seen_axes),
        jax.lax.psum(sums.overflow.astype(jnp.int32), axes) > 0,
    )


def batch_sums(
    comparison: ViewComparison,
    params: dict[str, Any],
    alive: jax.Array,
    active_degree: jax.Array,
    resident: Arrays,
    inputs: BatchInputs,
    shard_gaussians: bool = False,
) -> ViewSums:
    """Sums over all views of a batch, on the mesh of `jax.set_mesh` or on one device.

    Args:
      shard_gaussians: Gaussians lie sharded over the fsdp axis and stay so.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["data"] * mesh.shape["fsdp"] == 1:
        return comparison.all_views(params, alive, active_degree, resident, inputs)
    rows = P("fsdp") if shard_gaussians else P()
    specs = {name: jax.tree.map(lambda _: P(), part) for name, part in params.items()}
    specs["gaussians"] = jax.tree.map(lambda _: rows, params["gaussians"])

    def local(params, alive, active_degree, resident, inputs) -> ViewSums:
        arguments = params, alive, active_degree, resident, inputs
        if shard_gaussians:
            return _added_over(BATCH_AXES, _exchanged_views(comparison, *arguments), ("data",))
        return _added_over(BATCH_AXES, comparison.all_views(*arguments), BATCH_AXES)

    # Compositing loops a different number of times on each device, which the check of varying
    # axes cannot follow; the tests compare gradients with those of one device instead.
    spread = jax.shard_map(
        local,
        in_specs=(specs, rows, P(), P(), P(BATCH_AXES)),
        out_specs=ViewSums(P(), rows, P()),  # type: ignore[arg-type]
        check_vma=False,
    )
    return spread(params, alive, active_degree, resident, inputs)

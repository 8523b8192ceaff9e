"""The views of a batch spread over the devices of the mesh.

Two ways, with the same result as one device:

* every device holds all Gaussians and takes its own views; sums and gradients are added;
* Gaussians are sharded too: every device projects its shard for the views of its whole group, and
  receives the visible Gaussians of its own views, see `splats.gaussians.exchange`.

Vocabulary: G devices of a group (the fsdp axis), b views per device, n = N / G Gaussians per
device.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from splats.gaussians.exchange import GROUP, Arrival, exchange, rows_per_shard, send
from splats.losses.view_sums import (
    BatchInputs,
    SceneModel,
    ViewComparison,
    ViewSums,
    sum_over_views,
    with_counts,
)
from splats.render.renderer import composite_screen
from training.mesh import batch_shards

BATCH_AXES = ("data", GROUP)


def gaussian_shards() -> int:
    """Over how many devices of the mesh of `jax.set_mesh` Gaussians lie, where they are sharded."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[GROUP]


def _exchanged_views(
    comparison: ViewComparison, rows: int, model: SceneModel, inputs: BatchInputs
) -> ViewSums:
    """On one device: its Gaussians [n], its views [b]; `seen` of its Gaussians.

    The probes are those of its Gaussians for the views of its group [G b, n, 2].
    """
    settings = comparison.settings
    # Every device projects for the views of all, so that each Gaussian is projected where it lies.
    group_views = jax.lax.all_gather(inputs.view, GROUP, tiled=True)
    parcels, seen = send(
        model.gaussians,
        model.camera,
        group_views,
        inputs.probes,
        settings,
        model.active_degree,
        rows,
    )
    arrival, incomplete = exchange(parcels, channels=4 if settings.render_depth else 3)

    def one(received: tuple[jax.Array, jax.Array, Arrival]) -> ViewSums:
        view, background, (screen, absgrad) = received
        drawn = composite_screen(screen, background, settings, absgrad_probe=absgrad)
        totals = comparison.compare(drawn.image, drawn.alpha, drawn.depth, model, view, background)
        return with_counts(totals, screen.visible, drawn.pairs.pairs_needed, drawn.pairs.overflow)

    sums = sum_over_views(one, (inputs.view, inputs.background, arrival))
    return ViewSums(sums.totals, seen, sums.overflow, incomplete)


def _added_over(axes: tuple[str, ...], sums: ViewSums, seen_axes: tuple[str, ...]) -> ViewSums:
    def any_of(flag: jax.Array) -> jax.Array:
        # Flags are added as integers: any device's is everybody's.
        return jax.lax.psum(flag.astype(jnp.int32), axes) > 0

    return ViewSums(
        jax.tree.map(lambda leaf: jax.lax.psum(leaf, axes), sums.totals),
        jax.lax.psum(sums.seen, seen_axes),
        any_of(sums.overflow),
        any_of(sums.incomplete),
    )


def batch_sums(
    comparison: ViewComparison,
    model: SceneModel,
    inputs: BatchInputs,
    exchange_rows: int | None = None,
) -> ViewSums:
    """Sums over all views of a batch, on the mesh of `jax.set_mesh` or on one device.

    Args:
      exchange_rows: Gaussians lie sharded over the fsdp axis and stay so, and a device has room
        for so many visible ones of a view, in equal parts from each shard; None: all devices hold
        all Gaussians.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or batch_shards(mesh) == 1:  # type: ignore[arg-type]
        return comparison.all_views(model, inputs)
    shards = mesh.shape[GROUP]
    rows = 0  # of a parcel; 0: Gaussians stay where they are
    if exchange_rows is not None and shards > 1:
        rows = rows_per_shard(exchange_rows, model.alive.shape[0] // shards, shards)
    slots = P(GROUP) if rows else P()
    specs = {name: jax.tree.map(lambda _: P(), part) for name, part in model.params.items()}
    specs["gaussians"] = jax.tree.map(lambda _: slots, model.params["gaussians"])
    # Probes lie with the Gaussians where those are sharded: their gradients need not travel again.
    probes = P("data", GROUP) if rows else P(BATCH_AXES)

    def local(model: SceneModel, inputs: BatchInputs) -> ViewSums:
        if rows:
            sums = _exchanged_views(comparison, rows, model, inputs)
            return _added_over(BATCH_AXES, sums, ("data",))
        return _added_over(BATCH_AXES, comparison.all_views(model, inputs), BATCH_AXES)

    # Compositing loops a different number of times on each device, which the check of varying
    # axes cannot follow; the tests compare gradients with those of one device instead.
    spread = jax.shard_map(
        local,
        in_specs=(
            SceneModel(specs, slots, P(), P()),  # type: ignore[arg-type]
            BatchInputs(P(BATCH_AXES), P(BATCH_AXES), probes),  # type: ignore[arg-type]
        ),
        out_specs=ViewSums(P(), slots, P(), P()),  # type: ignore[arg-type]
        check_vma=False,
    )
    return spread(model, inputs)

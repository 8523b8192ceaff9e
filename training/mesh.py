"""Devices and placement: the mesh, sharding rules for the state, and rows of a batch per process.

Axes are `(data, fsdp, model)`, all `AxisType.Auto` (written out: the default of `jax.make_mesh` is
Explicit). Batches are split over data and fsdp; parameters by ordered regex rules, then by the
fsdp rule; everything else is replicated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from training.capabilities import ShardingRules
from training.config import MeshConfig
from training.errors import ConfigError
from training.paths import compile_pattern, map_named

PyTree = Any
AXES = ("data", "fsdp", "model")
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The device mesh of a run over `devices` (jax devices; all of them where None).

    Raises:
      ConfigError: the axis sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {axis: getattr(config, axis) for axis in AXES}
    free = [axis for axis, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    wrong = len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values())
    # `wrong` comes first: with a size of 0, `known` is 0 and no divisor.
    if wrong or len(devices) % known or (not free and known != len(devices)):
        raise ConfigError(
            f"config.mesh {sizes} does not fit {len(devices)} devices: the sizes must multiply to "
            f"{len(devices)}, and at most one may be -1"
        )
    shape = tuple(len(devices) // known if size == -1 else size for size in sizes.values())
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def platform() -> str:
    """`cpu`, `gpu` or `tpu`: that of the mesh that `jax.set_mesh` has set, else of this process.

    Every choice that depends on the hardware asks here, so that a step that is compiled for devices
    that are not attached is the one that they will run.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts a global batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(batch_size: int, accumulation: int, mesh: Mesh) -> None:
    """Raises ConfigError unless the batch divides by accumulation x data x fsdp."""
    for name, value in (("batch_size", batch_size), ("accumulation", accumulation)):
        if value < 1:
            raise ConfigError(f"config.{name} = {value} must be 1 or more")
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    if batch_size % (accumulation * data * fsdp):
        raise ConfigError(
            f"config.batch_size = {batch_size} is not divisible by accumulation x data x fsdp = "
            f"{accumulation} x {data} x {fsdp} = {accumulation * data * fsdp}; "
            "change batch_size, accumulation or the mesh"
        )


def _fsdp_spec(shape: tuple[int, ...], itemsize: int, size: int, min_bytes: int) -> PartitionSpec:
    """Shards the largest dimension that divides; small arrays stay whole."""
    # At least 1 byte: an array without elements stays whole even where the limit is 0.
    if size == 1 or math.prod(shape) * itemsize < max(min_bytes, 1):
        return PartitionSpec()
    for dimension in sorted(range(len(shape)), key=lambda d: -shape[d]):
        if shape[dimension] % size == 0 and shape[dimension] > 0:
            return PartitionSpec(*(None,) * dimension, "fsdp")
    return PartitionSpec()


def state_shardings(
    abstract: PyTree, mesh: Mesh, config: MeshConfig, task_rules: ShardingRules = ()
) -> PyTree:
    """A NamedSharding for each leaf; moments and averages follow their parameter's rule.

    Rules are matched (`re.search`) against leaf paths such as `params/encoder/layers/kernel`:
    those of the config, then those of the task, then the fsdp rule.

    Raises:
      ConfigError: a rule of the config that matches no leaf, or axes that do not divide the leaf.
    """
    used: set[str] = set()
    rules = [
        (compile_pattern(p, "config.mesh.rules"), axes) for p, axes in (*config.rules, *task_rules)
    ]

    def place(path: str, leaf: Any) -> NamedSharding:
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return NamedSharding(mesh, PartitionSpec())
        for pattern, axes in rules:
            if pattern.search(path):
                used.add(pattern.pattern)
                _check_rule(path, leaf.shape, axes, mesh)
                return NamedSharding(mesh, PartitionSpec(*axes))
        spec = _fsdp_spec(
            leaf.shape, leaf.dtype.itemsize, mesh.shape["fsdp"], config.fsdp_min_bytes
        )
        return NamedSharding(mesh, spec)

    shardings = map_named(place, abstract)
    unused = [pattern for pattern, _ in config.rules if pattern not in used]
    if unused:
        raise ConfigError(
            f"config.mesh.rules: {unused[0]!r} matches no parameter; remove or fix it"
        )
    return shardings


def _check_rule(path: str, shape: tuple[int, ...], axes: Iterable[str | None], mesh: Mesh) -> None:
    axes = tuple(axes)
    named = [axis for axis in axes if axis is not None]
    fits = (
        len(set(named)) == len(named)
        and len(axes) <= len(shape)
        and all(
            axis is None or (axis in mesh.shape and size % mesh.shape[axis] == 0)
            for size, axis in zip(shape, axes)
        )
    )
    if not fits:
        raise ConfigError(
            f"config.mesh.rules: axes {axes} do not fit {path} of shape {shape} "
            f"on the mesh {dict(mesh.shape)}; each axis must divide its dimension"
        )


def constrain_batch(x: jax.Array) -> jax.Array:
    """Pins the leading axis of an activation to the batch axes of the current mesh.

    Call it at block boundaries: without it the compiler may replicate activations. It does
    nothing where no mesh is set (`jax.set_mesh`) or the mesh has other axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not {"data", "fsdp"} <= set(mesh.axis_names):
        return x
    if x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, BATCH)


@dataclass(frozen=True)
class Layout:
    """A mesh with the helpers that place host data on it."""

    mesh: Mesh

    @property
    def replicated(self) -> NamedSharding:
        """The whole array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """The leading axis split over data and fsdp."""
        return NamedSharding(self.mesh, BATCH)

    def rows(self, batch_size: int) -> np.ndarray:
        """Row numbers of a global batch that this process has to supply, ascending.

        Processes that hold replicas of the same rows are given identical rows.
        """
        indices = self.batch.addressable_devices_indices_map((batch_size,))
        # A set, because devices along `model` hold the same rows.
        slices = {
            (s[0].start or 0, batch_size if s[0].stop is None else s[0].stop)
            for s in indices.values()
            if s
        }
        return np.concatenate([np.arange(*part) for part in sorted(slices)])

    def put_batch(self, local: dict[str, np.ndarray], batch_size: int) -> dict[str, jax.Array]:
        """Global arrays `[batch_size, ...]` from this process's rows, in the order of `rows`."""
        return self._put(local, batch_size, 0)

    def put_batches(
        self, local: Sequence[dict[str, np.ndarray]], batch_size: int
    ) -> dict[str, jax.Array]:
        """Global arrays `[updates, batch_size, ...]` from consecutive batches of this process."""
        stacked = {name: np.stack([batch[name] for batch in local]) for name in local[0]}
        return self._put(stacked, batch_size, 1)

    def _put(
        self, local: dict[str, np.ndarray], batch_size: int, axis: int
    ) -> dict[str, jax.Array]:
        expected = len(self.rows(batch_size))
        for name, array in local.items():
            if array.shape[axis] != expected:
                # Different sizes on different processes would hang the next collective.
                raise ConfigError(
                    f"batch[{name!r}] has {array.shape[axis]} rows here instead of {expected}"
                )
        sharding = NamedSharding(self.mesh, PartitionSpec(*(None,) * axis, ("data", "fsdp")))
        if jax.process_count() == 1:  # one call for all arrays: half the host time
            return jax.device_put(local, sharding)
        return {
            name: jax.make_array_from_process_local_data(
                sharding, x, (*x.shape[:axis], batch_size, *x.shape[axis + 1 :])
            )
            for name, x in local.items()
        }

    def replicate(self, tree: PyTree) -> PyTree:
        """The same host values on every device; every process must pass identical values."""
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(
                self.replicated, np.asarray(leaf), np.shape(leaf)
            ),
            tree,
        )

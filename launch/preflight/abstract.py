"""The program of a run on devices that are not attached, with or without the run's data."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np

from launch.preflight.stand_in import StandIn
from launch.preflight.topology import Topology
from training.capabilities import Varied
from training.config import TrainConfig
from training.mesh import Layout, make_mesh
from training.program import Program
from training.registry import make_task
from training.task import Task


def devices_of(topology: Topology) -> Sequence[Any]:
    """The devices of a slice that is not attached; libtpu describes them."""
    from jax.experimental import topologies

    return topologies.get_topology_desc(**topology.description()).devices


def make_program(
    config: TrainConfig, devices: Sequence[Any], stand_in: StandIn | None = None
) -> Program:
    """The program of a config on such devices.

    Args:
      stand_in: facts that are taken instead of those of the data; None opens the data where the
        task needs it.
    """
    task: Task = make_task(config)
    examples = None
    if stand_in is not None:
        examples = stand_in.train_examples
        if stand_in.metadata is not None:
            task = task.with_metadata(stand_in.metadata)
    return Program(task, Layout(make_mesh(config.mesh, devices)), examples)


def largest_variant(program: Program) -> Hashable:
    """The variant of a task with the largest batches, which decides the memory; None without."""
    task = program.task
    if not isinstance(task, Varied) or not task.variants:
        return None
    return max(task.variants, key=lambda variant: batch_bytes(program, variant))


def batch_bytes(program: Program, variant: Hashable = None) -> int:
    """Bytes of a global batch."""
    return tree_bytes(program.abstract_batches(1, variant))


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree, each counted once."""
    return sum(leaf_bytes(leaf) for leaf in jax.tree.leaves(tree))


def leaf_bytes(leaf: Any) -> int:
    """Bytes of one array; a typed key counts with its words."""
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return int(np.prod(leaf.shape, dtype=np.int64)) * leaf.dtype.itemsize

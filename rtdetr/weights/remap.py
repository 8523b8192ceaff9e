"""A detector's arrays for a run with other classes, or with other norms fixed.

*Heads* are the arrays with an axis of classes: the score heads of tokens and of decoder layers
(columns of kernels, entries of biases) and the table of the denoising classes (rows, and one more
at the end for padding). A class keeps its part of every head by *name*; numbers mean nothing. A
class that the earlier run did not know keeps its initialization.

From a checkpoint of a backbone (`podvision import rtdetr --backbone-only`) the backbone is taken.
A fixed norm's scale and bias are statistics, a trained one's are parameters; they change places.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from training.errors import CheckpointError

Leaves = Mapping[str, Any]
_SCORES = re.compile(r".*/decoder/(token_score|score_\d+)/(kernel|bias)")
_TABLE = re.compile(r".*/decoder/denoising_classes")
_NORM = re.compile(
    r"(params|model_state|ema/params|ema/statistics)(/backbone/.*/norm/(scale|bias))"
)
_OTHER_SIDE = {
    "params": "model_state",
    "model_state": "params",
    "ema/params": "ema/statistics",
    "ema/statistics": "ema/params",
}
BACKBONE_ONLY = "backbone_only"  # in the facts of a checkpoint
SHOWN = 8  # names of a list in a sentence


def is_head(path: str) -> bool:
    """Whether the array has an axis of classes."""
    return bool(_SCORES.fullmatch(path) or _TABLE.fullmatch(path))


def saved_form(
    initial: Leaves, saved: Collection[str], ours: Sequence[str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The leaves as the checkpoint with these facts has them.

    Heads are `jax.ShapeDtypeStruct` where the classes differ.

    Raises:
      CheckpointError: the checkpoint has heads and does not say of which classes.
    """
    theirs = facts.get("classes")
    if theirs is None and any(is_head(path) for path in saved):
        raise CheckpointError(
            "the checkpoint of config.checkpoint.init_from has class heads and does not name their "
            "classes; import the weights again with podvision import rtdetr --classes"
        )
    form = {}
    for path, leaf in initial.items():
        if facts.get(BACKBONE_ONLY) and "/backbone/" not in path:
            continue
        if theirs is not None and list(theirs) != list(ours) and is_head(path):
            leaf = _with_classes(path, leaf, len(theirs))
        form[_saved_path(path, saved)] = leaf
    return form


def inherited(
    restored: Leaves, initial: Leaves, ours: Sequence[str], facts: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The leaves of this run, and a sentence about what has another form.

    Args:
      restored: in the form of `saved_form`; heads that were not read are still no arrays.
    """
    theirs = facts.get("classes") or ()
    pairs, mapped = shared_classes(ours, theirs), False
    leaves = {}
    for path, start in initial.items():
        found = restored.get(_saved_path(path, restored.keys()), start)
        if isinstance(found, jax.ShapeDtypeStruct):
            found = start
        elif list(theirs) != list(ours) and is_head(path) and found is not start:
            found, mapped = remapped(path, found, start, pairs), True
        leaves[path] = found
    if facts.get(BACKBONE_ONLY):
        return leaves, ["the backbone was taken over; encoder, decoder and heads begin anew"]
    return leaves, [report(ours, theirs)] if mapped else []


def shared_classes(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """(number here, number there) of every class that both have."""
    there = {name: number for number, name in enumerate(theirs)}
    return [(number, there[name]) for number, name in enumerate(ours) if name in there]


def remapped(
    path: str, saved: jax.Array, start: jax.Array, pairs: Sequence[tuple[int, int]]
) -> jax.Array:
    """A head with the parts of shared classes; the rest is that of `start`, as is the sharding."""
    here, there = [a for a, _ in pairs], [b for _, b in pairs]
    if _TABLE.fullmatch(path):
        # The last row is the padding's on both sides.
        here, there = [*here, start.shape[0] - 1], [*there, saved.shape[0] - 1]
        head = start.at[jnp.array(here)].set(saved[jnp.array(there)])
    elif pairs:
        head = start.at[..., jnp.array(here)].set(saved[..., jnp.array(there)])
    else:
        head = start
    return jax.device_put(head, start.sharding)


def report(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """What became of the classes, in a sentence."""
    new = [name for name in ours if name not in theirs]
    left = [name for name in theirs if name not in ours]
    return (
        f"classes by name: {len(ours) - len(new)} of {len(ours)} keep their heads; new: "
        f"{_list(new)}; left behind: {_list(left)}"
    )


def _with_classes(path: str, leaf: jax.Array, count: int) -> jax.ShapeDtypeStruct:
    shape = (*leaf.shape[:-1], count)
    if _TABLE.fullmatch(path):
        shape = (count + 1, *leaf.shape[1:])
    sharding = leaf.sharding
    if isinstance(sharding, NamedSharding):
        # Whole on every device: its length may not divide over them.
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)


def _saved_path(path: str, saved: Collection[str]) -> str:
    """Where the checkpoint has the array: a norm that is fixed on one side only has moved."""
    norm = _NORM.fullmatch(path)
    if norm is None or path in saved:
        return path
    moved = _OTHER_SIDE[norm[1]] + norm[2]
    return moved if moved in saved else path


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"

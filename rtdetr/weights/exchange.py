"""Arrays of transformers to the trees here and back: every array once, nothing left over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rtdetr.config import ModelConfig
from rtdetr.model.counts import shapes
from rtdetr.weights.names import Entry, entries, to_tree
from rtdetr.weights.spellings import Tensors, as_saved
from training.errors import CheckpointError
from training.paths import named_leaves

SHOWN = 5  # names of a list in a message
BACKBONE = "model.backbone."


def to_trees(
    tensors: Tensors, model: ModelConfig, classes: int, where: str, backbone_only: bool = False
) -> dict[str, Any]:
    """`{"params": ..., "statistics": ...}` fp32 from arrays under the names of `names`.

    Args:
      where: the file, for messages.
      backbone_only: takes the backbone, and leaves everything else of the file aside.

    Raises:
      CheckpointError: arrays that are missing, left over or of another shape, by name.
    """
    wanted = entries(model)
    if backbone_only:
        wanted = [entry for entry in wanted if entry.name.startswith(BACKBONE)]
        tensors = {name: value for name, value in tensors.items() if name.startswith(BACKBONE)}
    names = {entry.name for entry in wanted}
    missing, extra = sorted(names - tensors.keys()), sorted(tensors.keys() - names)
    if missing or extra:
        raise CheckpointError(
            f"the weights in {where} do not fit the model: missing {_list(missing)}; left over "
            f"{_list(extra)}; give the settings that they were made with"
        )
    known = _shapes(model, classes)
    found = {entry.path: entry.to_ours(np.asarray(tensors[entry.name])) for entry in wanted}
    wrong = [
        f"{entry.name} is {tensors[entry.name].shape}, expected {_theirs(entry, known)}"
        for entry in wanted
        if found[entry.path].shape != known[entry.path]
    ]
    if wrong:
        raise CheckpointError(
            f"the weights in {where} have other shapes than the model: {_list(wrong)}; give the "
            "settings that they were made with"
        )
    arrays = {p: np.ascontiguousarray(value, dtype=np.float32) for p, value in found.items()}
    broken = [entry.name for entry in wanted if not np.isfinite(arrays[entry.path]).all()]
    if broken:
        raise CheckpointError(
            f"the weights in {where} hold values that are not finite in {_list(broken)}; export "
            "the model again"
        )
    return to_tree(arrays)


def to_tensors(trees: Mapping[str, Any], model: ModelConfig) -> Tensors:
    """The inverse of `to_trees`, under the names that `save_pretrained` writes."""
    leaves, tensors = named_leaves(trees), {}
    for entry in entries(model):
        value = np.asarray(leaves[entry.path], np.float32)
        tensors[as_saved(entry.name)] = np.ascontiguousarray(entry.to_theirs(value))
    norms = [entry for entry in entries(model) if entry.name.endswith(".running_mean")]
    for entry in norms:
        # Fixed norms have no counter there.
        if not (model.backbone.freeze_norm and entry.name.startswith(BACKBONE)):
            counter = entry.name.removesuffix("running_mean") + "num_batches_tracked"
            tensors[as_saved(counter)] = np.zeros((), np.int64)
    if model.decoder.offset_scale != 0.5:  # v2 keeps a table of its points
        scale = np.concatenate([np.full(n, 1 / n, np.float32) for n in model.decoder.points])
        for number in range(model.decoder.layers):
            tensors[f"model.decoder.layers.{number}.encoder_attn.n_points_scale"] = scale
    return tensors


def _shapes(model: ModelConfig, classes: int) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every array here; computes nothing."""
    params, statistics = shapes(model, classes)
    tree = {"params": params, "statistics": statistics}
    return {path: leaf.shape for path, leaf in named_leaves(tree).items()}


def _theirs(entry: Entry, known: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    return entry.to_theirs(np.broadcast_to(np.float32(0), known[entry.path])).shape


def _list(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"

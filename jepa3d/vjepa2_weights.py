"""Published V-JEPA 2 weights to and from our parameter tree, tensor by tensor.

Two namings are known: `transformers` (the "VJEPA2Model" class; a classifier adds the prefix
`vjepa2.`, a pooler and a head) and `official` (the authors' state dicts, `encoder/` and
`predictor/` joined by us under those prefixes). Every tensor is used exactly once and every leaf is
filled exactly once; anything else is an error that lists the names.

Our layout: a Dense kernel is the transposed weight; q, k and v are one kernel; blocks are stacked
on axis 0. The patch kernel is the Conv3d weight flattened in (channel, depth, height, width) order.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from jepa3d.config import ModelConfig, TransformerConfig
from training.errors import CheckpointError, ConfigError

Tensors = dict[str, np.ndarray]
NAMINGS = ("transformers", "official")

_SUFFIXES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_NORM, _DENSE = ("scale", "bias"), ("kernel", "bias")


class _Leaf(NamedTuple):
    """Where one leaf of our tree comes from.

    `sources` has one tuple of tensor names per block (a single one for unstacked leaves); the
    tensors of a tuple are joined along the output axis. `shape` is the shape of each tensor on
    file.
    """

    path: tuple[str, ...]
    sources: tuple[tuple[str, ...], ...]
    shape: tuple[int, ...]
    stacked: bool


def import_weights(
    tensors: Tensors,
    config: ModelConfig,
    naming: str = "transformers",
    pooler_layers: int | None = None,
) -> dict[str, Any]:
    """Builds our parameters from a published state dict.

    Args:
        tensors: arrays by published name, any float dtype.
        config: model of the published shape (channels and patch included).
        naming: "transformers" or "official".
        pooler_layers: self-attention blocks of the attentive pooler, if the file has one.

    Returns:
        {"encoder", "predictor"} and, with a pooler, {"pooler"}: nested dicts of float32 arrays.

    Raises:
        CheckpointError: tensors that are missing, not used, or of the wrong shape.
    """
    tensors = _canonical(tensors, naming)
    leaves = _leaves(config, naming, pooler_layers)
    _check(tensors, leaves)
    params: dict[str, Any] = {}
    for leaf in leaves:
        parts = [
            _to_leaf(leaf, [np.asarray(tensors[name], np.float32) for name in names])
            for names in leaf.sources
        ]
        node = params
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
        node[leaf.path[-1]] = np.stack(parts) if leaf.stacked else parts[0]
    return params


def export_weights(
    params: dict[str, Any],
    config: ModelConfig,
    naming: str = "transformers",
    pooler_layers: int | None = None,
) -> Tensors:
    """The inverse of `import_weights`: published names and shapes, float32."""
    tensors: Tensors = {}
    for leaf in _leaves(config, naming, pooler_layers):
        node: Any = params
        for key in leaf.path:
            if key not in node:
                raise CheckpointError(
                    f"parameter {'/'.join(leaf.path)} is missing; export a model of this config"
                )
            node = node[key]
        values = np.asarray(node, np.float32)
        for names, value in zip(leaf.sources, values if leaf.stacked else values[None]):
            tensors.update(zip(names, _from_leaf(leaf, value, len(names))))
    return tensors


def _to_leaf(leaf: _Leaf, parts: list[np.ndarray]) -> np.ndarray:
    name = leaf.path[-1]
    if name == "kernel":
        # Published weights are [out, in]: joined along the outputs, then turned to [in, out].
        joined = np.concatenate([part.reshape(part.shape[0], -1) for part in parts])
        return np.ascontiguousarray(joined.T)
    if name == "mask_tokens":
        return np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
    if name == "query":
        return parts[0].reshape(parts[0].shape[-1])
    return np.concatenate(parts)


def _from_leaf(leaf: _Leaf, value: np.ndarray, count: int) -> list[np.ndarray]:
    value = value.T if leaf.path[-1] == "kernel" else value
    parts = [value] if leaf.path[-1] == "query" else np.split(value, count)
    return [np.ascontiguousarray(part).reshape(leaf.shape) for part in parts]


def _check(tensors: Tensors, leaves: list[_Leaf]) -> None:
    expected = {name: leaf.shape for leaf in leaves for names in leaf.sources for name in names}
    missing = sorted(expected.keys() - tensors.keys())
    unused = sorted(tensors.keys() - expected.keys())
    if missing or unused:
        raise CheckpointError(
            f"weights do not fit the model: missing {missing or 'none'}, unused "
            f"{unused or 'none'}; use the config that the weights were made with"
        )
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise CheckpointError(
            f"weights have other shapes than the model: {'; '.join(wrong)}; correct the config"
        )


def _canonical(tensors: Tensors, naming: str) -> Tensors:
    """Strips wrappers from names; drops the frozen position tables that RoPE models do not use."""
    if naming not in NAMINGS:
        raise ConfigError(f"weight naming {naming!r} is unknown; choose transformers or official")
    if naming == "transformers":
        return {re.sub(r"^vjepa2\.", "", name): value for name, value in tensors.items()}
    # The wrappers that the authors train with leave these words in the names.
    cleaned = {re.sub(r"\b(module|backbone)\.", "", n): value for n, value in tensors.items()}
    frozen = ("encoder.pos_embed", "predictor.predictor_pos_embed")
    return {name: value for name, value in cleaned.items() if name not in frozen}


def _leaves(config: ModelConfig, naming: str, pooler_layers: int | None) -> list[_Leaf]:
    if config.levels > 1 or config.context_head:
        raise ConfigError(
            "published V-JEPA 2 weights have one level and no context head; "
            "clear model.supervise_layers and model.context_head"
        )
    if pooler_layers is not None and naming != "transformers":
        raise ConfigError("the attentive pooler is read in the transformers naming; convert first")
    encoder, narrow = config.encoder, config.predictor
    d, p = encoder.dim, narrow.dim
    conv = (d, config.channels, *config.patch)
    if naming == "transformers":
        leaves = _single(
            ("encoder", "patch"), "encoder.embeddings.patch_embeddings.proj", _DENSE, conv
        )
        leaves += _blocks("encoder", "encoder.layer.{}.", encoder, _TRANSFORMERS_BLOCK)
        leaves += _single(("encoder", "norm"), "encoder.layernorm", _NORM, (d,))
        leaves += _single(
            ("predictor", "proj_in"),
            "predictor.embeddings.predictor_embeddings",
            _DENSE,
            (p, d),
        )
        tokens, shape = ("predictor.embeddings.mask_tokens",), (config.mask_tokens, 1, 1, p)
        leaves += _blocks("predictor", "predictor.layer.{}.", narrow, _TRANSFORMERS_BLOCK)
        leaves += _single(("predictor", "norm"), "predictor.layernorm", _NORM, (p,))
        leaves += _single(("predictor", "proj_out"), "predictor.proj", _DENSE, (d, p))
    else:
        leaves = _single(("encoder", "patch"), "encoder.patch_embed.proj", _DENSE, conv)
        leaves += _blocks("encoder", "encoder.blocks.{}.", encoder, _OFFICIAL_BLOCK)
        leaves += _single(("encoder", "norm"), "encoder.norm", _NORM, (d,))
        leaves += _single(("predictor", "proj_in"), "predictor.predictor_embed", _DENSE, (p, d))
        tokens = tuple(f"predictor.mask_tokens.{i}" for i in range(config.mask_tokens))
        shape = (1, 1, p)
        leaves += _blocks("predictor", "predictor.predictor_blocks.{}.", narrow, _OFFICIAL_BLOCK)
        leaves += _single(("predictor", "norm"), "predictor.predictor_norm", _NORM, (p,))
        leaves += _single(("predictor", "proj_out"), "predictor.predictor_proj", _DENSE, (d, p))
    leaves.append(_Leaf(("predictor", "mask_tokens"), (tokens,), shape, stacked=False))
    if pooler_layers is not None:
        leaves += _pooler_leaves(encoder, pooler_layers)
    return leaves


# Our leaf group -> names of the tensors that are joined into it, with the role of their shape.
_TRANSFORMERS_BLOCK = {
    "norm1": ("norm", ("norm1",)),
    "qkv": ("square", ("attention.query", "attention.key", "attention.value")),
    "out": ("square", ("attention.proj",)),
    "norm2": ("norm", ("norm2",)),
    "fc1": ("widen", ("mlp.fc1",)),
    "fc2": ("narrow", ("mlp.fc2",)),
}
_OFFICIAL_BLOCK = {
    **_TRANSFORMERS_BLOCK,
    "qkv": ("triple", ("attn.qkv",)),
    "out": ("square", ("attn.proj",)),
}
_POOLER_BLOCK = {
    "norm1": ("norm", ("layer_norm1",)),
    "qkv": ("square", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    "out": ("square", ("self_attn.out_proj",)),
    "norm2": ("norm", ("layer_norm2",)),
    "fc1": ("widen", ("mlp.fc1",)),
    "fc2": ("narrow", ("mlp.fc2",)),
}
_POOLER_CROSS = {
    "norm1": ("norm", ("layer_norm1",)),
    "q": ("square", ("cross_attn.q_proj",)),
    "kv": ("square", ("cross_attn.k_proj", "cross_attn.v_proj")),
    "norm2": ("norm", ("layer_norm2",)),
    "fc1": ("widen", ("mlp.fc1",)),
    "fc2": ("narrow", ("mlp.fc2",)),
}


def _shape(role: str, config: TransformerConfig) -> tuple[int, ...]:
    d, hidden = config.dim, config.hidden
    shapes = {
        "norm": (d,),
        "square": (d, d),
        "triple": (3 * d, d),
        "widen": (hidden, d),
        "narrow": (d, hidden),
    }
    return shapes[role]


def _single(
    path: tuple[str, ...], name: str, kinds: tuple[str, ...], shape: tuple[int, ...]
) -> list[_Leaf]:
    return [
        _Leaf(
            (*path, kind),
            ((f"{name}.{_SUFFIXES[kind]}",),),
            shape[:1] if kind == "bias" else shape,
            stacked=False,
        )
        for kind in kinds
    ]


def _blocks(
    part: str,
    prefix: str,
    config: TransformerConfig,
    table: dict[str, tuple[str, tuple[str, ...]]],
    group: str = "layers",
) -> list[_Leaf]:
    """Leaves of a group of blocks; stacked if the prefix has a place for the block index."""
    stacked = "{}" in prefix
    prefixes = [prefix.format(i) for i in range(config.depth)] if stacked else [prefix]
    leaves = []
    for name, (role, sources) in table.items():
        for kind in _NORM if role == "norm" else _DENSE:
            shape = _shape(role, config)
            names = tuple(
                tuple(f"{start}{source}.{_SUFFIXES[kind]}" for source in sources)
                for start in prefixes
            )
            shape = shape[:1] if kind == "bias" else shape
            leaves.append(_Leaf((part, group, name, kind), names, shape, stacked))
    return leaves


def _pooler_leaves(encoder: TransformerConfig, layers: int) -> list[_Leaf]:
    blocks = TransformerConfig(encoder.dim, max(layers, 1), encoder.heads)
    leaves = [
        _Leaf(("pooler", "query"), (("pooler.query_tokens",),), (1, 1, encoder.dim), stacked=False)
    ]
    if layers:
        prefix = "pooler.self_attention_layers.{}."
        leaves += _blocks("pooler", prefix, blocks, _POOLER_BLOCK)
    return leaves + _blocks(
        "pooler", "pooler.cross_attention_layer.", blocks, _POOLER_CROSS, "cross"
    )

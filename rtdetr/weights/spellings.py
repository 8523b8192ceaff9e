"""Names of arrays as releases of transformers and the authors' programs spell them, made one.

The one spelling is that of `rtdetr.weights.names` (transformers 5). Older releases, and
`save_pretrained` of all, write `out_proj`, `fc1` and `encoder.encoder`; the authors' programs have
names of their own (Zhao et al. 2024, `rtdetr_pytorch` and `rtdetrv2_pytorch`), with query, key and
value in one array.
"""

from __future__ import annotations

import re

import numpy as np

from training.errors import CheckpointError

Tensors = dict[str, np.ndarray]

# Counters and tables that follow from the settings; no weights.
CONSTANTS = re.compile(
    r".*\.(num_batches_tracked|n_points_scale|num_points_scale|anchors|valid_mask)|anchors|valid_mask"
)
_OLD = (
    (r"(encoder\.)encoder(\.\d+\.layers\.)", r"\1aifi\2"),
    (r"(self_attn\.)out_proj\.", r"\1o_proj."),
    (r"(layers\.\d+\.)(fc[12]\.)", r"\1mlp.\2"),
    # Heads of the whole detector, which are those of its decoder.
    (r"^((?:class|bbox)_embed\.)", r"model.decoder.\1"),
)
_SAVED = (
    (r"(encoder\.)aifi(\.\d+\.layers\.)", r"\1encoder\2"),
    (r"(self_attn\.)o_proj\.", r"\1out_proj."),
    (r"(layers\.\d+\.)mlp\.(fc[12]\.)", r"\1\2"),
)
_BACKBONE = "model.backbone.model"
_PARTS = {"conv": "convolution", "norm": "normalization"}
_NUMBERS = {"conv": "0", "norm": "1", "proj": "0", "0": "0", "1": "1"}
_LAYER = {
    "self_attn.out_proj": "self_attn.o_proj",
    "cross_attn": "encoder_attn",
    "linear1": "mlp.fc1",
    "linear2": "mlp.fc2",
}
_ENCODER_NORMS = {"norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"}
_DECODER_NORMS = {
    "norm1": "self_attn_layer_norm",
    "norm2": "encoder_attn_layer_norm",
    "norm3": "final_layer_norm",
}
_HEADS = {
    "dec_score_head": "decoder.class_embed",
    "dec_bbox_head": "decoder.bbox_embed",
    "query_pos_head": "decoder.query_pos_head",
}


def from_transformers(tensors: Tensors) -> Tensors:
    """The arrays under one spelling, without constants.

    Raises:
      CheckpointError: two arrays of one name that are not equal.
    """
    found: Tensors = {}
    for name, value in tensors.items():
        if CONSTANTS.fullmatch(name):
            continue
        new = _replaced(name, _OLD)
        if new in found and not np.array_equal(found[new], value):
            raise CheckpointError(
                f"the weights have {new} twice with other values (once as {name}); export the "
                "model again"
            )
        found[new] = value
    return found


def as_saved(name: str) -> str:
    """The name as `save_pretrained` writes it, which every release reads."""
    return _replaced(name, _SAVED)


def is_of_authors(names: list[str]) -> bool:
    """Whether arrays are named as in the authors' programs."""
    return any(re.match(r"(backbone\.)?(conv1\.conv1_1|res_layers)\.", name) for name in names)


def from_authors(tensors: Tensors) -> Tensors:
    """The arrays of the authors' programs; one whose name is unknown keeps it."""
    found: Tensors = {}
    for name, value in tensors.items():
        name = name.removeprefix("module.")
        if CONSTANTS.fullmatch(name):
            continue
        if re.match(r"(conv1|res_layers)\.", name):  # a file of the backbone alone
            name = f"backbone.{name}"
        new = _author_name(name)
        joined = re.fullmatch(r"(.*\.self_attn\.)in_proj_?(weight|bias)", new)
        if joined is None:
            found[new] = value
            continue
        for letter, part in zip("qkv", np.split(value, 3)):
            found[f"{joined[1]}{letter}_proj.{joined[2]}"] = part
    return found


def _author_name(name: str) -> str:
    part, _, rest = name.partition(".")
    named = {"backbone": _author_backbone, "encoder": _author_encoder, "decoder": _author_decoder}
    return named[part](rest) if part in named else name


def _author_backbone(name: str) -> str:
    if m := re.fullmatch(r"conv1\.conv1_(\d)\.(conv|norm)\.(\w+)", name):
        stem = f"{_BACKBONE}.embedder.embedder.{int(m[1]) - 1}"
        return f"{stem}.{_PARTS[m[2]]}.{m[3]}"
    if m := re.fullmatch(r"res_layers\.(\d)\.blocks\.(\d+)\.(.*)\.(conv|norm)\.(\w+)", name):
        layer = {"short": "shortcut", "short.conv": "shortcut.1"}.get(m[3])
        if branch := re.fullmatch(r"branch2([abc])", m[3]):
            layer = f"layer.{'abc'.index(branch[1])}"
        if layer is not None:
            block = f"{_BACKBONE}.encoder.stages.{m[1]}.layers.{m[2]}"
            return f"{block}.{layer}.{_PARTS[m[4]]}.{m[5]}"
    return f"backbone.{name}"


def _author_encoder(name: str) -> str:
    if m := re.fullmatch(r"input_proj\.(\d)\.(conv|norm|0|1)\.(\w+)", name):
        return f"model.encoder_input_proj.{m[1]}.{_NUMBERS[m[2]]}.{m[3]}"
    if m := re.fullmatch(r"encoder\.0\.layers\.(\d+)\.(.*)", name):
        return f"model.encoder.aifi.0.layers.{m[1]}.{_layer_name(m[2], _ENCODER_NORMS)}"
    return f"model.encoder.{name}"


def _author_decoder(name: str) -> str:
    if m := re.fullmatch(r"input_proj\.(\d)\.(conv|norm|0|1)\.(\w+)", name):
        return f"model.decoder_input_proj.{m[1]}.{_NUMBERS[m[2]]}.{m[3]}"
    if m := re.fullmatch(r"enc_output\.(proj|norm|0|1)\.(\w+)", name):
        return f"model.enc_output.{_NUMBERS[m[1]]}.{m[2]}"
    if m := re.fullmatch(r"decoder\.layers\.(\d+)\.(.*)", name):
        return f"model.decoder.layers.{m[1]}.{_layer_name(m[2], _DECODER_NORMS)}"
    head, _, rest = name.partition(".")
    return f"model.{_HEADS.get(head, head)}.{rest}"


def _layer_name(name: str, norms: dict[str, str]) -> str:
    for theirs, ours in {**_LAYER, **norms}.items():
        if name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return name


def _replaced(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, template in rules:
        name = re.sub(pattern, template, name)
    return name

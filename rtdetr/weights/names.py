"""Names of the arrays in transformers' RT-DETR (and v2), beside their places here.

A place is a path in `{"params": ..., "statistics": ...}`. Layouts: "conv" is `[out, in, row,
column]` there and `[row, column, in, out]` here; "dense" is `[out, in]` there and `[in, out]` here;
"plain" is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdetr.config import ModelConfig


@dataclass(frozen=True)
class Entry:
    """One array: its name there, its path here, and how the axes lie."""

    name: str
    path: str
    layout: str

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """The array with axes as they are here."""
        axes = {"conv": (2, 3, 1, 0), "dense": (1, 0)}.get(self.layout)
        return array if axes is None else array.transpose(axes)

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_ours`."""
        axes = {"conv": (3, 2, 0, 1), "dense": (1, 0)}.get(self.layout)
        return array if axes is None else array.transpose(axes)


def entries(config: ModelConfig) -> list[Entry]:
    """All arrays of a network, each once."""
    return [
        *_backbone(config),
        *_encoder(config),
        *_decoder(config),
    ]


def to_tree(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Nested dicts from paths."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *folders, leaf = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = array
    return tree


def _norm(name: str, path: str, frozen: bool = False) -> Iterator[Entry]:
    """A batch norm; all of a frozen one are statistics."""
    trained = "statistics" if frozen else "params"
    yield Entry(f"{name}.weight", f"{trained}/{path}/scale", "plain")
    yield Entry(f"{name}.bias", f"{trained}/{path}/bias", "plain")
    yield Entry(f"{name}.running_mean", f"statistics/{path}/mean", "plain")
    yield Entry(f"{name}.running_var", f"statistics/{path}/var", "plain")


def _conv_norm(conv: str, norm: str, path: str, frozen: bool = False) -> Iterator[Entry]:
    yield Entry(f"{conv}.weight", f"params/{path}/kernel", "conv")
    yield from _norm(norm, f"{path}/norm", frozen)


def _dense(name: str, path: str) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", f"params/{path}/kernel", "dense")
    yield Entry(f"{name}.bias", f"params/{path}/bias", "plain")


def _layer_norm(name: str, path: str) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", f"params/{path}/scale", "plain")
    yield Entry(f"{name}.bias", f"params/{path}/bias", "plain")


def _attention(name: str, path: str) -> Iterator[Entry]:
    for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")):
        yield from _dense(f"{name}.{theirs}_proj", f"{path}/{ours}")


def _mlp(name: str, path: str, layers: int) -> Iterator[Entry]:
    for number in range(layers):
        yield from _dense(f"{name}.layers.{number}", f"{path}/layer_{number}")


def _backbone(config: ModelConfig) -> Iterator[Entry]:
    frozen, root = config.backbone.freeze_norm, "model.backbone.model"
    for number in range(3):
        name = f"{root}.embedder.embedder.{number}"
        path = f"backbone/stem/conv_{number}"
        yield from _conv_norm(f"{name}.convolution", f"{name}.normalization", path, frozen)
    convolutions = 2 if config.backbone.block == "basic" else 3
    for stage, depth in enumerate(config.backbone.depths):
        for block in range(depth):
            name = f"{root}.encoder.stages.{stage}.layers.{block}"
            path = f"backbone/stage_{stage}/block_{block}"
            for number in range(convolutions):
                part = f"{name}.layer.{number}"
                ours = f"{path}/conv_{number}"
                yield from _conv_norm(f"{part}.convolution", f"{part}.normalization", ours, frozen)
            if block == 0:
                # Where it averages first, that is number 0 and the projection number 1.
                part = f"{name}.shortcut" + (".1" if stage > 0 else "")
                ours = f"{path}/shortcut/project"
                yield from _conv_norm(f"{part}.convolution", f"{part}.normalization", ours, frozen)


def _encoder(config: ModelConfig) -> Iterator[Entry]:
    encoder, levels = config.encoder, len(config.decoder.points)
    for level in range(levels):
        name = f"model.encoder_input_proj.{level}"
        yield from _conv_norm(f"{name}.0", f"{name}.1", f"encoder/input_{level}")
    for number in range(encoder.layers):
        name = f"model.encoder.aifi.0.layers.{number}"
        path = f"encoder/attention_{number}"
        yield from _attention(f"{name}.self_attn", f"{path}/attention")
        yield from _layer_norm(f"{name}.self_attn_layer_norm", f"{path}/attention_norm")
        yield from _dense(f"{name}.mlp.fc1", f"{path}/feed_forward_0")
        yield from _dense(f"{name}.mlp.fc2", f"{path}/feed_forward_1")
        yield from _layer_norm(f"{name}.final_layer_norm", f"{path}/feed_forward_norm")
    for step in range(levels - 1):
        for theirs, ours in (("lateral_convs", "lateral"), ("downsample_convs", "shrink")):
            name = f"model.encoder.{theirs}.{step}"
            yield from _conv_norm(f"{name}.conv", f"{name}.norm", f"encoder/{ours}_{step}")
        for theirs, ours in (("fpn_blocks", "down_fusion"), ("pan_blocks", "up_fusion")):
            name = f"model.encoder.{theirs}.{step}"
            yield from _fusion(config, name, f"encoder/{ours}_{step}")


def _fusion(config: ModelConfig, name: str, path: str) -> Iterator[Entry]:
    pairs = [("conv1", "through"), ("conv2", "past")]
    for number in range(config.encoder.blocks):
        block = f"bottlenecks.{number}"
        pairs += [
            (f"{block}.conv1", f"block_{number}/conv_3"),
            (f"{block}.conv2", f"block_{number}/conv_1"),
        ]
    if int(config.encoder.width * config.encoder.expansion) != config.encoder.width:
        pairs.append(("conv3", "out"))
    for theirs, ours in pairs:
        yield from _conv_norm(f"{name}.{theirs}.conv", f"{name}.{theirs}.norm", f"{path}/{ours}")


def _decoder(config: ModelConfig) -> Iterator[Entry]:
    decoder = config.decoder
    for level in range(len(decoder.points)):
        name = f"model.decoder_input_proj.{level}"
        yield from _conv_norm(f"{name}.0", f"{name}.1", f"decoder/input_{level}")
    yield Entry("model.denoising_class_embed.weight", "params/decoder/denoising_classes", "plain")
    yield from _dense("model.enc_output.0", "decoder/token")
    yield from _layer_norm("model.enc_output.1", "decoder/token_norm")
    yield from _dense("model.enc_score_head", "decoder/token_score")
    yield from _mlp("model.enc_bbox_head", "decoder/token_box", 3)
    layers = len(decoder.position_hidden) + 1
    yield from _mlp("model.decoder.query_pos_head", "decoder/position", layers)
    for number in range(decoder.layers):
        yield from _decoder_layer(f"model.decoder.layers.{number}", f"decoder/layer_{number}")
        yield from _dense(f"model.decoder.class_embed.{number}", f"decoder/score_{number}")
        yield from _mlp(f"model.decoder.bbox_embed.{number}", f"decoder/box_{number}", 3)


def _decoder_layer(name: str, path: str) -> Iterator[Entry]:
    yield from _attention(f"{name}.self_attn", f"{path}/attention")
    yield from _layer_norm(f"{name}.self_attn_layer_norm", f"{path}/attention_norm")
    for theirs, ours in (
        ("sampling_offsets", "offsets"),
        ("attention_weights", "weights"),
        ("value_proj", "value"),
        ("output_proj", "out"),
    ):
        yield from _dense(f"{name}.encoder_attn.{theirs}", f"{path}/sampling/{ours}")
    yield from _layer_norm(f"{name}.encoder_attn_layer_norm", f"{path}/sampling_norm")
    yield from _dense(f"{name}.mlp.fc1", f"{path}/feed_forward_0")
    yield from _dense(f"{name}.mlp.fc2", f"{path}/feed_forward_1")
    yield from _layer_norm(f"{name}.final_layer_norm", f"{path}/feed_forward_norm")

"""Settings of a network, read from the shapes of its arrays.

The authors' files hold no settings. What no shape tells (heads, queries, activation) is that of
every network that they published.
"""

from __future__ import annotations

import re

from rtdetr.config import BackboneConfig, DecoderConfig, EncoderConfig, ModelConfig
from rtdetr.weights.spellings import Tensors
from training.errors import CheckpointError

HEADS, LEVELS = 8, 3
_BACKBONE = "model.backbone.model"
_STAGE = rf"{re.escape(_BACKBONE)}\.encoder\.stages\."


def model_of(tensors: Tensors, where: str) -> ModelConfig:
    """The settings; of a backbone alone, with everything behind it at its default.

    Args:
      tensors: under the names of `rtdetr.weights.names`.
      where: the file, for messages.

    Raises:
      CheckpointError: an array by which a setting is known is missing.
    """
    backbone = backbone_of(tensors, where)
    if not any(name.startswith("model.encoder.") for name in tensors):
        return ModelConfig(backbone=backbone)
    return ModelConfig(
        backbone=backbone, encoder=_encoder(tensors, where), decoder=_decoder(tensors, where)
    )


def backbone_of(tensors: Tensors, where: str) -> BackboneConfig:
    """The backbone's settings; its norms are fixed where they are in the published recipes."""
    depths, widths = [], []
    third = _count(tensors, rf"{_STAGE}0\.layers\.0\.layer\.(\d+)\..*") == 3
    block = "bottleneck" if third else "basic"
    for stage in range(4):
        depths.append(_count(tensors, rf"{_STAGE}{stage}\.layers\.(\d+)\..*"))
        first = f"{_BACKBONE}.encoder.stages.{stage}.layers.0.layer.0.convolution.weight"
        widths.append(_shape(tensors, first, where)[0])
    stem = [
        _shape(tensors, f"{_BACKBONE}.embedder.embedder.{n}.convolution.weight", where)[0]
        for n in range(3)
    ]
    return BackboneConfig(
        block=block,
        depths=(depths[0], depths[1], depths[2], depths[3]),
        stem=(stem[0], stem[1], stem[2]),
        widths=(widths[0], widths[1], widths[2], widths[3]),
        freeze_stem=third,
        freeze_norm=third,
    )


def _encoder(tensors: Tensors, where: str) -> EncoderConfig:
    width = _shape(tensors, "model.encoder_input_proj.0.0.weight", where)[0]
    layers = "model.encoder.aifi.0.layers"
    block = "model.encoder.fpn_blocks.0"
    inner = _shape(tensors, f"{block}.conv1.conv.weight", where)[0]
    return EncoderConfig(
        width=width,
        heads=HEADS,
        feed_forward=_shape(tensors, f"{layers}.0.mlp.fc1.weight", where)[0],
        layers=_count(tensors, rf"{re.escape(layers)}\.(\d+)\..*"),
        blocks=_count(tensors, rf"{re.escape(block)}\.bottlenecks\.(\d+)\..*"),
        expansion=inner / width,
    )


def _decoder(tensors: Tensors, where: str) -> DecoderConfig:
    layer = "model.decoder.layers.0"
    weights = _shape(tensors, f"{layer}.encoder_attn.attention_weights.weight", where)[0]
    points = weights // (HEADS * LEVELS)
    hidden = _count(tensors, r"model\.decoder\.query_pos_head\.layers\.(\d+)\..*") - 1
    head = "model.decoder.query_pos_head.layers"
    return DecoderConfig(
        width=_shape(tensors, "model.enc_output.0.weight", where)[0],
        heads=HEADS,
        feed_forward=_shape(tensors, f"{layer}.mlp.fc1.weight", where)[0],
        layers=_count(tensors, r"model\.decoder\.layers\.(\d+)\..*"),
        points=(points, points, points),
        position_hidden=tuple(
            _shape(tensors, f"{head}.{n}.weight", where)[0] for n in range(hidden)
        ),
        # As the authors' program selects.
        select_invalid=True,
    )


def class_count(tensors: Tensors, where: str) -> int:
    """Classes that the heads tell apart."""
    return _shape(tensors, "model.enc_score_head.weight", where)[0]


def _count(tensors: Tensors, pattern: str) -> int:
    """How many numbers stand where the pattern has its group."""
    return len({m[1] for name in tensors if (m := re.fullmatch(pattern, name))})


def _shape(tensors: Tensors, name: str, where: str) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(
            f"the weights in {where} have no array {name}, so they are of no RT-DETR; it has "
            f"{', '.join(list(tensors)[:3])}, ..."
        )
    return tensors[name].shape

"""A network's settings as `config.json` of transformers has them, in both directions.

RT-DETR (`rt_detr`) and RT-DETRv2 (`rt_detr_v2`) differ by one number, the scale of the sampling
offsets. Settings that the network here does not have are refused by name, never left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from rtdetr.config import BackboneConfig, DecoderConfig, EncoderConfig, ModelConfig
from rtdetr.data.dataset import ClassTable
from training.errors import ConfigError

KINDS = {"rt_detr": "RTDetrForObjectDetection", "rt_detr_v2": "RTDetrV2ForObjectDetection"}
# What every network here has, and transformers' default is the same.
FIXED = {
    "feat_strides": [8, 16, 32],
    "encode_proj_layers": [2],
    "positional_encoding_temperature": 10000,
    "encoder_activation_function": "gelu",
    "activation_function": "silu",
    "normalize_before": False,
    "num_feature_levels": 3,
    "learn_initial_query": False,
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
    "decoder_method": "default",
    "with_box_refine": True,
    "eval_size": None,
}
FIXED_BACKBONE = {
    "model_type": "rt_detr_resnet",
    "num_channels": 3,
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
    "out_indices": [2, 3, 4],
}
FUSION_BLOCKS = 3  # transformers has no setting for it
OFFSET_SCALE = 0.5  # of rt_detr


def from_transformers(values: Mapping[str, Any], where: str) -> tuple[ModelConfig, ClassTable]:
    """Model and classes of a `config.json`.

    Args:
      where: the file, for messages.

    Raises:
      ConfigError: another kind of model, a setting that there is not here, or no class names.
    """
    if values.get("model_type") not in KINDS:
        raise ConfigError(
            f"{where} is of a model of type {values.get('model_type')!r}; give one of "
            f"{' or '.join(KINDS)}"
        )
    backbone = values.get("backbone_config") or {}
    _refuse_others(values, FIXED, where)
    _refuse_others(backbone, FIXED_BACKBONE, f"{where}, backbone_config")
    get = values.get
    width = get("d_model", 256)
    points = get("decoder_n_points", 4)
    model = ModelConfig(
        backbone=_backbone(backbone, get("freeze_backbone_batch_norms", True)),
        encoder=EncoderConfig(
            width=get("encoder_hidden_dim", 256),
            heads=get("encoder_attention_heads", 8),
            feed_forward=get("encoder_ffn_dim", 1024),
            layers=get("encoder_layers", 1),
            blocks=FUSION_BLOCKS,
            expansion=float(get("hidden_expansion", 1.0)),
        ),
        decoder=DecoderConfig(
            width=width,
            heads=get("decoder_attention_heads", 8),
            feed_forward=get("decoder_ffn_dim", 1024),
            layers=get("decoder_layers", 6),
            queries=get("num_queries", 300),
            points=(points, points, points),
            offset_scale=float(get("decoder_offset_scale", OFFSET_SCALE)),
            activation=get("decoder_activation_function", "relu"),
            position_hidden=(2 * width,),
            # As its own program selects.
            select_invalid=True,
        ),
    )
    return model, class_names(values, where)


def class_names(values: Mapping[str, Any], where: str) -> ClassTable:
    """The table that `id2label` is.

    Raises:
      ConfigError: no names, numbers with a gap, or a name that two classes have.
    """
    labels = {int(number): str(name) for number, name in (values.get("id2label") or {}).items()}
    names = tuple(labels[number] for number in sorted(labels))
    if not names or sorted(labels) != list(range(len(names))):
        raise ConfigError(f"{where} must number its classes 0, 1, ... in id2label; complete it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{where} has two classes with the name {twice[0]!r} in id2label; rename one of them"
        )
    return ClassTable(names, tuple(range(len(names))))


def to_transformers(model: ModelConfig, classes: ClassTable) -> dict[str, Any]:
    """The inverse of `from_transformers`.

    Raises:
      ConfigError: a setting that transformers does not have; all are listed.
    """
    _refuse_untranslatable(model)
    backbone, encoder, decoder = model.backbone, model.encoder, model.decoder
    kind = "rt_detr" if decoder.offset_scale == OFFSET_SCALE else "rt_detr_v2"
    values: dict[str, Any] = {
        "architectures": [KINDS[kind]],
        "model_type": kind,
        "dtype": "float32",
        "id2label": {str(number): name for number, name in enumerate(classes.names)},
        "label2id": {name: number for number, name in enumerate(classes.names)},
        "backbone_config": {
            **FIXED_BACKBONE,
            "embedding_size": backbone.stem[2],
            "hidden_sizes": [width * backbone.expansion for width in backbone.widths],
            "depths": list(backbone.depths),
            "layer_type": backbone.block,
        },
        "freeze_backbone_batch_norms": backbone.freeze_norm,
        "encoder_in_channels": list(backbone.channels),
        "encoder_hidden_dim": encoder.width,
        "encoder_attention_heads": encoder.heads,
        "encoder_ffn_dim": encoder.feed_forward,
        "encoder_layers": encoder.layers,
        "hidden_expansion": encoder.expansion,
        "d_model": decoder.width,
        "decoder_in_channels": [encoder.width] * 3,
        "decoder_attention_heads": decoder.heads,
        "decoder_ffn_dim": decoder.feed_forward,
        "decoder_layers": decoder.layers,
        "decoder_n_points": decoder.points[0],
        "decoder_activation_function": decoder.activation,
        "num_queries": decoder.queries,
    }
    fixed = dict(FIXED)
    if kind == "rt_detr_v2":
        values |= {"decoder_offset_scale": decoder.offset_scale, "decoder_n_levels": 3}
    else:
        del fixed["decoder_method"]
    return {**fixed, **values}


def _backbone(values: Mapping[str, Any], frozen: bool) -> BackboneConfig:
    block = values.get("layer_type", "bottleneck")
    expansion = 4 if block == "bottleneck" else 1
    a, b, c, d = (n // expansion for n in values.get("hidden_sizes", (256, 512, 1024, 2048)))
    stem = values.get("embedding_size", 64)
    w, x, y, z = values.get("depths", (3, 4, 6, 3))
    return BackboneConfig(
        block=block,
        depths=(w, x, y, z),
        stem=(stem // 2, stem // 2, stem),
        widths=(a, b, c, d),
        # Where norms are fixed the stem is, too, in the published recipes.
        freeze_stem=frozen,
        freeze_norm=frozen,
    )


def _refuse_others(values: Mapping[str, Any], fixed: Mapping[str, Any], where: str) -> None:
    for key, wanted in fixed.items():
        found = values.get(key, wanted)
        if (list(found) if isinstance(found, tuple) else found) != wanted:
            raise ConfigError(
                f"{where} has {key} = {found!r}, and the network here knows {wanted!r} only; give "
                "another model"
            )


def _refuse_untranslatable(model: ModelConfig) -> None:
    backbone, encoder, decoder = model.backbone, model.encoder, model.decoder
    half = backbone.stem[2] // 2
    needs = {
        "backbone.stem": (backbone.stem, (half, half, 2 * half)),
        "encoder.blocks": (encoder.blocks, FUSION_BLOCKS),
        "encoder.positions": (encoder.positions, "y_major"),
        "decoder.points": (decoder.points, (decoder.points[0],) * 3),
        "decoder.position_hidden": (decoder.position_hidden, (2 * decoder.width,)),
        "decoder.anchor_size": (decoder.anchor_size, 0.05),
        "decoder.anchors": (decoder.anchors, "relative"),
        "decoder.anchor_margin": (decoder.anchor_margin, 0.01),
    }
    wrong = [
        f"{key} = {found!r} (only {can!r})" for key, (found, can) in needs.items() if found != can
    ]
    channels = (backbone.stem[2], *backbone.widths)
    if backbone.block == "basic":
        # It averages before it projects only where the channels change, and always there.
        fits = [a != b for a, b in pairwise(channels)] == [False, True, True, True]
    else:
        fits = channels[0] != 4 * channels[1]  # else it has no shortcut to project
    if not fits:
        wrong.append(f"backbone.widths = {backbone.widths} after a stem of {channels[0]} channels")
    if wrong:
        raise ConfigError(
            f"transformers has no setting for config.model.{', config.model.'.join(wrong)}; export "
            "to another format"
        )

"""The `config.json` with which transformers' `VJEPA2Model.from_pretrained` opens our weights."""

from __future__ import annotations

from typing import Any

from jepa3d.config import ModelConfig, TransformerConfig
from training.errors import ConfigError


def to_transformers(model: ModelConfig) -> dict[str, Any]:
    """Settings of `VJEPA2Config`; a volume is a clip whose frames are the B-scans.

    Raises:
      ConfigError: the model computes something that `VJEPA2Model` does not.
    """
    _check(model)
    encoder, predictor = model.encoder, model.predictor
    return {
        "model_type": "vjepa2",
        "architectures": ["VJEPA2Model"],
        "dtype": "float32",
        "frames_per_clip": model.volume[0],
        "crop_size": model.volume[1],
        "tubelet_size": model.patch[0],
        "patch_size": model.patch[1],
        "in_chans": model.channels,
        "hidden_size": encoder.dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "mlp_ratio": encoder.mlp_ratio,
        "pred_hidden_size": predictor.dim,
        "pred_num_hidden_layers": predictor.depth,
        "pred_num_attention_heads": predictor.heads,
        "pred_mlp_ratio": predictor.mlp_ratio,
        "pred_num_mask_tokens": model.mask_tokens,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "drop_path_rate": 0.0,
        "attention_dropout": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _check(model: ModelConfig) -> None:
    (_, height, width), (_, *patch) = model.volume, model.patch
    lacking = [
        (height != width or patch[0] != patch[1], "B-scans or patches that are not square"),
        (model.rope != "tiled", f"model.rope {model.rope!r}"),
        (model.rope_reference_grid > 0, "model.rope_reference_grid"),
        (model.levels > 1, "several supervised levels"),
        (model.context_head, "a context head"),
        (not all(map(_has_whole_hidden, (model.encoder, model.predictor))), "this mlp_ratio"),
    ]
    found = [words for is_so, words in lacking if is_so]
    if found:
        raise ConfigError(
            f"transformers' VJEPA2Model has no counterpart of {', '.join(found)}; use the model "
            "from its work folder (podvision predict --workdir)"
        )


def _has_whole_hidden(part: TransformerConfig) -> bool:
    """Whether both programs take the same width of the MLP: transformers cuts, we round."""
    return int(part.dim * part.mlp_ratio) == part.hidden

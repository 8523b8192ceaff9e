"""Named model sizes.

`jepa3d_*` take grayscale OCT volumes of 64 x 384 x 384 voxels; `vjepa2_*` are the published shapes
(three channels, tubelets of two frames, 16 frames of 256 x 256 pixels here); `tiny` is for a CPU.
"""

from __future__ import annotations

import dataclasses

from jepa3d.config import ModelConfig, TransformerConfig
from training.errors import ConfigError


def _vjepa2(dim: int, depth: int, heads: int, mlp_ratio: float = 4.0) -> ModelConfig:
    return ModelConfig(
        volume=(16, 256, 256),
        patch=(2, 16, 16),
        channels=3,
        encoder=TransformerConfig(dim, depth, heads, mlp_ratio),
        predictor=TransformerConfig(384, 12, 12),
        mask_tokens=10,
    )


MODEL_PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(
        volume=(16, 64, 64),
        encoder=TransformerConfig(48, 2, 4),
        predictor=TransformerConfig(24, 2, 2),
    ),
    # Two encoders and the predictor together hold 29.4 M parameters.
    "jepa3d_29m": ModelConfig(
        encoder=TransformerConfig(384, 6, 6), predictor=TransformerConfig(256, 9, 4)
    ),
    "jepa3d_s": ModelConfig(
        encoder=TransformerConfig(384, 12, 6), predictor=TransformerConfig(192, 12, 6)
    ),
    # A wider, shallower predictor with heads of 64.
    "jepa3d_s_320": ModelConfig(
        encoder=TransformerConfig(384, 12, 6), predictor=TransformerConfig(320, 6, 5)
    ),
    "jepa3d_b": ModelConfig(
        encoder=TransformerConfig(768, 12, 12), predictor=TransformerConfig(384, 12, 12)
    ),
    "vjepa2_l": _vjepa2(1024, 24, 16),
    "vjepa2_h": _vjepa2(1280, 32, 16),
    "vjepa2_g": _vjepa2(1408, 40, 22, 48 / 11),
}


def model_preset(name: str, **changes) -> ModelConfig:
    """A named model, with fields replaced.

    Raises:
        ConfigError: unknown name.
    """
    if name not in MODEL_PRESETS:
        raise ConfigError(
            f"model preset {name!r} is unknown; choose one of {', '.join(MODEL_PRESETS)}"
        )
    return dataclasses.replace(MODEL_PRESETS[name], **changes)

"""Pictures of one evaluated volume: B-scan, visible tokens, prediction error, features.

All on the host. A picture is a row of panels of the B-scan in the middle of the volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from jepa3d.config import MaskConfig, ModelConfig

PANEL_WIDTH = 320  # pixels
CAPTION_HEIGHT = 18
HEAT = np.array(  # dark violet, magenta, orange, pale yellow: rising in luminance
    [[20, 11, 52], [132, 32, 107], [229, 92, 48], [246, 215, 70], [252, 255, 164]], np.float32
)


def draw(
    picture: Mapping[str, np.ndarray], model: ModelConfig, masks: Sequence[MaskConfig]
) -> np.ndarray:
    """uint8 `[height, width, 3]`: the panels of the middle B-scan side by side, with captions.

    Args:
      picture: `volume` uint8 [D, H, W]; `features` [tokens, dim]; `error` [tokens], mean absolute
        error of predicted tokens and -1 elsewhere; `visible` [tokens], 1 for context tokens.
      model: token grid and patch.
      masks: the mask sets; the panels show the first one.
    """
    grid, depth = model.grid, model.grid[0] // 2
    frame = picture["volume"][depth * model.patch[0] + model.patch[0] // 2]
    gray = np.repeat(frame[:, :, None], 3, axis=2).astype(np.float32)
    visible = _spread(picture["visible"].reshape(grid)[depth], model)
    error = picture["error"].reshape(grid)
    predicted = _spread((error[depth] >= 0).astype(np.float32), model)
    # -1 marks tokens that were not predicted; `initial` keeps the division below finite.
    top = float(error[error >= 0].max(initial=1e-6))
    heat = _heat(_spread(np.clip(error[depth] / top, 0, 1), model))
    share = masks[0].context_tokens / model.tokens
    panels = {
        "middle B-scan": gray,
        f"visible to the encoder ({share:.0%} of all tokens)": gray * visible[..., None],
        f"prediction error (0 to {top:.2f})": np.where(predicted[..., None] > 0, heat, gray * 0.35),
        "features, first three components": _components(picture["features"], model, depth),
    }
    return np.concatenate([_panel(image, text) for text, image in panels.items()], axis=1)


def _spread(tokens_HxW: np.ndarray, model: ModelConfig) -> np.ndarray:
    """Each token's value over its patch, `[height, width]` in voxels."""
    return tokens_HxW.repeat(model.patch[1], axis=0).repeat(model.patch[2], axis=1)


def _heat(values: np.ndarray) -> np.ndarray:
    position = values * (len(HEAT) - 1)
    low = np.clip(position.astype(int), 0, len(HEAT) - 2)
    mix = (position - low)[..., None]
    return HEAT[low] * (1 - mix) + HEAT[low + 1] * mix


def _components(features: np.ndarray, model: ModelConfig, depth: int) -> np.ndarray:
    """Principal components of the volume's token features as red, green and blue."""
    centered = features - features.mean(axis=0, keepdims=True)
    # Axes from 4,095 tokens at most: the SVD of all would cost much and look the same.
    _, _, axes = np.linalg.svd(centered[:: max(1, len(centered) // 2048)], full_matrices=False)
    scores = centered @ axes[:3].T
    # A few extreme tokens would otherwise take the whole range of colors.
    low, high = np.percentile(scores, [2, 98], axis=0)
    colors = np.clip((scores - low) / np.maximum(high - low, 1e-9), 0, 1) * 255
    plane = colors.reshape(*model.grid, -1)[depth]
    return np.stack([_spread(plane[..., c], model) for c in range(plane.shape[-1])], axis=-1)


def _panel(image: np.ndarray, caption: str) -> np.ndarray:
    height = round(PANEL_WIDTH * image.shape[0] / image.shape[1])
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    scaled = Image.fromarray(pixels).resize((PANEL_WIDTH, height), Image.Resampling.NEAREST)
    canvas = Image.new("RGB", (PANEL_WIDTH + 4, height + CAPTION_HEIGHT), (255, 255, 255))
    canvas.paste(scaled, (2, CAPTION_HEIGHT))
    ImageDraw.Draw(canvas).text((3, 3), caption, fill=(40, 40, 40))
    return np.asarray(canvas)

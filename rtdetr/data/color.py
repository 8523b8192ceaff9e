"""Random brightness, contrast, saturation, hue and order of the channels.

The photometric distortion of SSD (Liu et al. 2016, section 2.2) in the form of torchvision's
`RandomPhotometricDistort`, which RT-DETR trains with: the same order, ranges and chances. All but
the hue are affine in RGB, and one pass of integer arithmetic each.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

BRIGHTNESS = (0.875, 1.125)
CONTRAST = SATURATION = (0.5, 1.5)
HUE = (-0.05, 0.05)  # turns of the color circle
LUMA = np.array([0.299, 0.587, 0.114])  # weights of R, G, B (ITU-R BT.601)


@dataclass(frozen=True)
class ColorChange:
    """One draw; None leaves that property as it is.

    Attributes:
      brightness, contrast, saturation: factors.
      hue: turns.
      contrast_first: contrast comes before saturation and hue, not after them.
      order: which channel stands at each place.
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    contrast_first: bool = True
    order: tuple[int, ...] | None = None


def draw_color(generator: np.random.Generator, probability: float) -> ColorChange:
    """Each of the five properties changes with this probability."""
    changed = generator.random(5) < probability
    ranges = np.array([BRIGHTNESS, CONTRAST, SATURATION, HUE])
    drawn = generator.uniform(ranges[:, 0], ranges[:, 1])
    values = [float(value) if on else None for value, on in zip(drawn, changed)]
    contrast_first = bool(generator.random() < 0.5)
    order = tuple(int(place) for place in generator.permutation(3)) if changed[4] else None
    brightness, contrast, saturation, hue = values
    return ColorChange(brightness, contrast, saturation, hue, contrast_first, order)


def recolored(pixels: np.ndarray, change: ColorChange) -> np.ndarray:
    """Changed pixels, uint8 [height, width, 3] RGB; each step is rounded and clipped to 0 … 255."""
    if change.brightness is not None:
        pixels = _affine(pixels, change.brightness * np.eye(3), 0.0)
    if change.contrast is not None and change.contrast_first:
        pixels = _contrasted(pixels, change.contrast)
    if change.saturation is not None:
        gray = np.tile(LUMA, (3, 1))
        mixture = change.saturation * np.eye(3) + (1 - change.saturation) * gray
        pixels = _affine(pixels, mixture, 0.0)
    if change.hue is not None:
        pixels = _turned(pixels, change.hue)
    if change.contrast is not None and not change.contrast_first:
        pixels = _contrasted(pixels, change.contrast)
    if change.order is not None:
        # A matrix of zeros and ones: exact, and a tenth of the time that indexing takes.
        pixels = _affine(pixels, np.eye(3)[list(change.order)], 0.0)
    return pixels


def _contrasted(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Moves every value away from the mean gray, or towards it."""
    mean = float(np.dot(cv2.mean(pixels)[:3], LUMA))
    return _affine(pixels, factor * np.eye(3), (1 - factor) * mean)


def _affine(pixels: np.ndarray, matrix_3x3: np.ndarray, offset: float) -> np.ndarray:
    rows = np.concatenate([matrix_3x3, np.full((3, 1), offset)], axis=1)
    return cv2.transform(pixels, rows)


def _turned(pixels: np.ndarray, turns: float) -> np.ndarray:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    # One turn is 256 steps, so that uint8 wraps around as the circle does.
    hsv[..., 0] += np.uint8(round(turns * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)

"""How alike two pictures are: PSNR and SSIM, of float pictures [H, W, 3] in 0..1."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SIGMA, TRUNCATE = 1.5, 3.5  # of the Gaussian window, which is 11 pixels wide
C1, C2 = 0.01**2, 0.03**2


def psnr(found: np.ndarray, wanted: np.ndarray, counted: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio, dB, over the pixels [H, W] that count; NaN if none does."""
    error = np.square(np.clip(found, 0, 1).astype(np.float64) - wanted)
    if counted is not None:
        error = error[counted]
    if not error.size:
        return float("nan")
    # Equal pictures have an infinite ratio, which no mean survives.
    return float(-10 * np.log10(max(error.mean(), 1e-10)))


def ssim(found: np.ndarray, wanted: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian windows inside of the picture."""
    x, y = np.clip(found, 0, 1).astype(np.float64), wanted.astype(np.float64)

    def blurred(picture: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(picture, SIGMA, truncate=TRUNCATE, axes=(0, 1))

    mx, my = blurred(x), blurred(y)
    vx, vy, both = blurred(x * x) - mx * mx, blurred(y * y) - my * my, blurred(x * y) - mx * my
    value = (2 * mx * my + C1) * (2 * both + C2) / ((mx**2 + my**2 + C1) * (vx + vy + C2))
    edge = min(5, (min(value.shape[:2]) - 1) // 2)
    return float(value[edge : value.shape[0] - edge, edge : value.shape[1] - edge].mean())

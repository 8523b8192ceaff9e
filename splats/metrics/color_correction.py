"""Affine color fit of a rendering to its photograph, for scenes with varying exposure.

Scores after the fit say how good the geometry is when color drift is forgiven. They are written
under names of their own and never mixed with the plain ones. All of it is numpy on the host.
"""

from __future__ import annotations

import numpy as np


def fit_affine(
    rendered: np.ndarray, photograph: np.ndarray, valid: np.ndarray | None = None
) -> np.ndarray:
    """The rendering after the affine map of colors that is closest to the photograph.

    Least squares over all pixels that count and are not saturated in either image; the result is
    clipped to [0, 1].

    Args:
      rendered: float [H, W, 3] in [0, 1].
      photograph: float [H, W, 3] in [0, 1].
      valid: bool [H, W], pixels that count; None is all.
    """
    inputs = rendered.reshape(-1, 3).astype(np.float64)
    targets = photograph.reshape(-1, 3).astype(np.float64)
    # Saturated pixels say only that the true color lies beyond.
    usable = np.all((inputs > 0) & (inputs < 1) & (targets > 0) & (targets < 1), axis=1)
    if valid is not None:
        usable &= valid.reshape(-1)
    if usable.sum() < 16:  # too few to fit 12 numbers
        return rendered
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(design[usable], targets[usable], rcond=None)
    return np.clip(design @ solution, 0.0, 1.0).reshape(rendered.shape).astype(np.float32)

"""Sine and cosine of a token's row and column (Vaswani et al. 2017, for two axes)."""

from __future__ import annotations

import numpy as np

TEMPERATURE = 10_000.0


def position_embedding(height: int, width: int, channels: int, order: str) -> np.ndarray:
    """fp32 `[height * width, channels]`, tokens row by row: sin y, cos y, sin x, cos x.

    Args:
      order: "y_major"; or "x_major", in which the tokens are counted column by column although the
        map is not, as the authors' code does. Equal where height and width are.
    """
    quarter = channels // 4
    omega = TEMPERATURE ** -(np.arange(quarter) / quarter)
    if order == "y_major":
        rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    else:
        columns, rows = np.meshgrid(np.arange(width), np.arange(height), indexing="ij")
    y, x = rows.reshape(-1, 1) * omega, columns.reshape(-1, 1) * omega
    parts = [np.sin(y), np.cos(y), np.sin(x), np.cos(x)]
    if order == "x_major":
        parts = [np.sin(x), np.cos(x), np.sin(y), np.cos(y)]
    return np.concatenate(parts, axis=1).astype(np.float32)

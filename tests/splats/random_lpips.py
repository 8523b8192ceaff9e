"""Weights and images of a fixed seed for LPIPS, the same where the reference is computed."""

from __future__ import annotations

import numpy as np

from splats.metrics.lpips import SCALE, SHIFT
from splats.metrics.lpips_weights import expected_shapes

SIZES = {"alex": (45, 67), "vgg": (33, 50)}  # rows, columns: odd, so that pools drop some


def random_weights(network: str) -> dict[str, np.ndarray]:
    """The state of the `lpips` package with random values, channel weights under their first name.

    Deviations keep activations about as large from layer to layer. RandomState never changes.
    """
    random = np.random.RandomState(7)
    tensors = {}
    for name, shape in expected_shapes(network).items():
        values = random.normal(size=shape)
        if name.startswith("lin"):
            values = np.abs(values)
        elif name.endswith("weight"):
            values *= np.sqrt(2 / np.prod(shape[1:]))
        tensors[name] = values.astype(np.float32)
    tensors["scaling_layer.shift"] = np.asarray(SHIFT, np.float32).reshape(1, 3, 1, 1)
    tensors["scaling_layer.scale"] = np.asarray(SCALE, np.float32).reshape(1, 3, 1, 1)
    return tensors


def image_pairs(network: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images [H, W, 3] float32 in [0, 1]: unrelated, alike, and one with a flat half."""
    rows, columns = SIZES[network]
    random = np.random.RandomState(11)
    first, second = random.uniform(size=(2, rows, columns, 3)).astype(np.float32)
    flat = second.copy()
    flat[:, : columns // 2] = 0.0
    return [(first, second), (first, np.clip(first + 0.02 * second, 0, 1)), (first, flat)]

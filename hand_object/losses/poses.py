"""Poses should stay near those that the data has."""

from __future__ import annotations

import jax.numpy as jnp

from hand_object.fields.layers import Params
from training.loss import Total

LENGTH = 0.1  # meters that count as much as one radian


def corrections(tables: Params, start: Params) -> Total:
    """Mean square of what was added to rotations (rad) and translations (`LENGTH` is the unit)."""
    total, count = jnp.float32(0.0), 0
    for name, table in tables.items():
        for part, values in table.items():
            change = values - start[name][part]
            unit = LENGTH if part == "translation" else 1.0
            total = total + jnp.sum(jnp.square(change / unit))
            count += change.size
    return Total(total, jnp.float32(count))

"""Figures that say what parameters mean: terms of the pictures on fixed pixels of fixed frames.

They depend on the fields, the poses and the data, and on no setting in which stages may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.config import Config, RaysConfig
from hand_object.loss_config import LossConfig, PhasesConfig
from hand_object.losses.base import base_terms
from hand_object.render.scene import init_caches
from training.loss import Context

FRAMES = 8
FOREVER = 2**30  # updates, after which all octaves are open


def make_witness(
    config: Config, nodes: Sequence[str], frames: np.ndarray
) -> Callable[[Any, Any], dict[str, jax.Array]]:
    """Compiled: (parameters, resident arrays) -> figures.

    Args:
      nodes: as for `base_terms`.
      frames: those that are trained on.
    """
    same = replace(config, rays=RaysConfig(), losses=LossConfig(), phases=PhasesConfig())
    rows = frames[np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)]

    def witness(params: Any, resident: Any) -> dict[str, jax.Array]:
        batch = {
            "frame": jnp.asarray(rows, jnp.int32),
            "position": jnp.arange(FRAMES, dtype=jnp.uint32),
        }
        # Made here: those of a state are as old as their last refresh.
        caches = init_caches(params, same.model)
        key = jax.random.key(0)
        context = Context(None, {"caches": caches}, jnp.int32(FOREVER), key, resident)
        base = base_terms(same, nodes, params, context, batch, key)
        shown = {name: base.terms[name] for name in ("rgb", "mask")} | base.metrics
        return {name: total.mean() for name, total in shown.items()}

    return jax.jit(witness)

"""Whether a checkpoint belongs to the scene that is loaded: its split and its world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from splats.data.scene import Scene
from training.errors import CheckpointError

TOLERANCE = 1e-3  # of the largest entry; linear algebra libraries differ by far less


def check_saved_scene(metadata: Mapping[str, Any], scene: Scene) -> None:
    """Compares a checkpoint's metadata with the scene.

    Raises:
      CheckpointError: a view that is held out now has been trained on, or the world of the
        Gaussians is not the world of the cameras.
    """
    leaked = set(metadata["split"]["train"]) & set(scene.split.test)
    if leaked:
        raise CheckpointError(
            f"{len(leaked)} held-out views (first: {min(leaked)}) were trained on by this "
            "checkpoint; use the split of the run that wrote it (config.scene.split)"
        )
    if "normalization" not in metadata:
        return
    saved = np.asarray(metadata["normalization"])
    if np.abs(saved - scene.normalization).max() > TOLERANCE * np.abs(saved).max():
        raise CheckpointError(
            "the cameras or points of the scene changed since this checkpoint, so that its "
            "normalized world is another one; restore the files of the scene "
            "(config.scene.path) or config.scene.normalize"
        )

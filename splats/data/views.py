"""Views of a scene: as examples (an index), as device arrays, and as cameras of the renderer."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from splats.data.scene import Scene
from splats.losses.poses import corrected
from splats.render.camera import Camera

Arrays = dict[str, Any]


class ViewSource:
    """Examples are `{"view": number}`, the position of a view in `indices` of the scene."""

    def __init__(self, scene: Scene, indices: np.ndarray):
        self.scene, self.indices = scene, np.asarray(indices)

    @property
    def fingerprint(self) -> str:
        names = "\n".join(self.identity(i) for i in range(len(self)))
        return hashlib.blake2b(f"{self.scene.fingerprint}\n{names}".encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        # An index only: the photographs lie on the devices for the whole run.
        return {"view": np.asarray(index, np.int32)}

    def identity(self, index: int) -> str:
        return self.scene.names[int(self.indices[index])]


def view_arrays(scene: Scene, indices: np.ndarray) -> Arrays:
    """Numpy arrays of views for the devices.

    Returns:
      images uint8 [V, H, W, 3], world_to_camera [V, 4, 4], intrinsics [V, 3, 3]; where not every
      pixel is opaque, alpha uint8 [V, H, W]; where not every pixel counts, valid bool [V, H, W].
    """
    arrays = {
        "images": scene.images[indices],
        "world_to_camera": scene.world_to_camera[indices],
        "intrinsics": scene.intrinsics[indices],
    }
    if scene.alpha is not None:
        arrays["alpha"] = scene.alpha[indices]
    if scene.valid is not None:
        arrays["valid"] = scene.valid[indices]
    return arrays


def camera_of(arrays: Arrays, view: jax.Array, corrections: jax.Array | None = None) -> Camera:
    """The camera of a view, with its pose correction where there is one ([V, 9])."""
    pose = jnp.asarray(arrays["world_to_camera"])[view]
    if corrections is not None:
        pose = corrected(pose, corrections[view])
    intrinsics = jnp.asarray(arrays["intrinsics"])[view]
    return Camera(pose, intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2])

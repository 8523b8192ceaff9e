"""Depth supervision by the reconstructed points that each photograph observes.

COLMAP triangulates points from matched keypoints; a view therefore knows the depth at the pixels
of its own points. The term is the L1 distance of disparities; the task multiplies it by the scene
scale, so that it has no unit (gsplat).
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from splats.config import SYNTHETIC, SceneConfig, scene_folder
from splats.data.capture import FARTHEST
from splats.data.colmap import find_model, read_model
from splats.data.normalization import transform_points
from splats.data.scene import Scene
from splats.render.camera import Camera
from training.errors import ConfigError


def supervising_points(scene: Scene, config: SceneConfig) -> dict[str, np.ndarray]:
    """`points` and `points_present` (see `observed_points`) of the training views.

    Raises:
      ConfigError: a scene that was not read from a COLMAP model on disk, or one without
        observations.
    """
    path = config.path
    if scene.kind != "colmap" or path == SYNTHETIC:
        kind = scene.kind if path != SYNTHETIC else "ray cast, without a model on disk"
        raise ConfigError(
            f"config.losses.depth needs a COLMAP model, and the scene {path} is {kind}; set it to 0"
        )
    names = tuple(scene.names[i] for i in scene.train)
    points, present = observed_points(scene_folder(path), names, scene.normalization, config.sparse)
    return {"points": points, "points_present": present}


def observed_points(
    folder: Path, names: tuple[str, ...], normalization: np.ndarray, sparse: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Points of each named view, padded to the longest list.

    Returns:
      float32 [V, K, 3] in normalized world units, and bool [V, K] where a point is.

    Raises:
      ConfigError: no COLMAP model with observations.
    """
    model_folder = find_model(folder, sparse)
    if model_folder is None:
        raise ConfigError(
            f"config.losses.depth needs a COLMAP model, and {folder} has none; set it to 0"
        )
    model = read_model(model_folder)
    near = np.abs(model.points.positions).max(axis=1, initial=0) < FARTHEST  # False for NaN
    row_of = {int(number): row for row, number in enumerate(model.points.ids) if near[row]}
    observed = {image.name: image.point_ids for image in model.images.values()}
    lists = [
        sorted({row_of[int(i)] for i in observed.get(name, ()) if int(i) in row_of})
        for name in names
    ]
    longest = max((len(rows) for rows in lists), default=0)
    if longest == 0:
        raise ConfigError(
            f"config.losses.depth needs points with observations, and the model in {model_folder} "
            "has none; set it to 0"
        )
    kept = np.where(near[:, None], model.points.positions, 0.0)
    positions = transform_points(normalization, kept).astype(np.float32)
    points = np.zeros((len(names), longest, 3), np.float32)
    present = np.zeros((len(names), longest), bool)
    for view, rows in enumerate(lists):
        points[view, : len(rows)] = positions[rows]
        present[view, : len(rows)] = True
    return points, present


def disparity_error(
    depth: jax.Array, camera: Camera, points: jax.Array, present: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of |1 / rendered depth - 1 / point depth| and the number of points in the image.

    Args:
      depth: [H, W] rendered camera z, 0 where nothing is.
      points: [K, 3] world.
      present: bool [K].
    """
    height, width = depth.shape
    rotation, translation = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
    local = jnp.einsum("ij,kj->ki", rotation, points, precision="highest") + translation[None, :]
    # Behind the camera: a harmless depth, since the mask below cannot undo a NaN in a gradient.
    z = jnp.maximum(local[:, 2], 1e-6)
    column = jnp.floor(camera.fx * local[:, 0] / z + camera.cx).astype(jnp.int32)
    row = jnp.floor(camera.fy * local[:, 1] / z + camera.cy).astype(jnp.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (local[:, 2] > 1e-6)
    rendered = depth[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    # Where nothing is drawn the surface counts as infinitely far away, disparity 0.
    drawn = rendered > 1e-6
    disparity = jnp.where(drawn, 1.0 / jnp.where(drawn, rendered, 1.0), 0.0)
    usable = present & inside
    error = jnp.where(usable, jnp.abs(disparity - 1.0 / z), 0.0)
    return jnp.sum(error), jnp.sum(usable).astype(jnp.float32)

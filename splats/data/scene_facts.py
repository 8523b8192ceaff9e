"""What a model must know of its scene to be used once the photographs are gone.

Facts are saved with every checkpoint: the world (to bring Gaussians back to that of the data set),
the cameras (to orbit, to show where photographs were taken) and the split (so that nobody scores on
what was trained on). Cameras take about 200 bytes of JSON a view. Legend of shapes: view V.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from splats.data.splits import Split
from training.errors import CheckpointError

TOLERANCE = 1e-3  # of the largest entry; linear algebra libraries differ by far less


@dataclass(frozen=True, eq=False)
class SceneFacts:
    """A scene without its pixels and points.

    names: V unique names, sorted.
    sizes: [V,2] int32, (width, height) of each view in pixels.
    world_to_camera: [V,4,4] float32, rigid, lengths in normalized world units.
    intrinsics: [V,3,3] float32, pinhole, pixels.
    normalization: [4,4] float64, from the data set's world to the normalized one (a similarity).
    scene_scale: 1.1 * largest distance of a camera from the mean camera, normalized world units.
    split: the names that train and those that are held out.
    kind: colmap, nerfstudio or blender.
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    world_to_camera: np.ndarray
    intrinsics: np.ndarray
    normalization: np.ndarray
    scene_scale: float
    split: Split
    kind: str

    @cached_property
    def train(self) -> np.ndarray:
        """int32, positions of the training views in `names`."""
        return self._positions(self.split.train)

    @cached_property
    def test(self) -> np.ndarray:
        """int32, positions of the held-out views in `names`."""
        return self._positions(self.split.test)

    def _positions(self, chosen: tuple[str, ...]) -> np.ndarray:
        number = {name: position for position, name in enumerate(self.names)}
        return np.array([number[name] for name in chosen], np.int32)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels that hold every view."""
        width, height = self.sizes.max(axis=0).tolist()
        return width, height


def to_metadata(facts: SceneFacts) -> dict[str, Any]:
    """JSON of the facts; every float comes back bit by bit."""
    views = [
        {
            "name": name,
            "size": facts.sizes[view].tolist(),
            # Without the last row, which is always 0 0 0 1.
            "world_to_camera": _shortest(facts.world_to_camera[view, :3]),
            # fx, fy, cx, cy.
            "intrinsics": _shortest(facts.intrinsics[view, [0, 1, 0, 1], [0, 1, 2, 2]]),
        }
        for view, name in enumerate(facts.names)
    ]
    return {
        "kind": facts.kind,
        "split": facts.split.to_dict(),
        "scene_scale": facts.scene_scale,
        "normalization": facts.normalization.tolist(),
        "views": views,
    }


def from_metadata(content: Mapping[str, Any]) -> SceneFacts:
    """Inverse of `to_metadata`."""
    views = content["views"]
    poses = np.tile(np.eye(4, dtype=np.float32), (len(views), 1, 1))
    poses[:, :3] = np.array([view["world_to_camera"] for view in views]).reshape(-1, 3, 4)
    return SceneFacts(
        names=tuple(view["name"] for view in views),
        sizes=np.array([view["size"] for view in views], np.int32),
        world_to_camera=poses,
        intrinsics=pinholes(np.array([view["intrinsics"] for view in views])),
        normalization=np.array(content["normalization"], np.float64),
        scene_scale=float(content["scene_scale"]),
        split=Split.from_dict(content["split"]),
        kind=content["kind"],
    )


def pinholes(values: np.ndarray) -> np.ndarray:
    """Matrices [V,3,3] float32 of `values` [V,4]: fx, fy, cx, cy."""
    matrices = np.tile(np.eye(3, dtype=np.float32), (len(values), 1, 1))
    matrices[:, [0, 1, 0, 1], [0, 1, 2, 2]] = values
    return matrices


def _shortest(values: np.ndarray) -> list[float]:
    """The decimals that are just enough for a float32: half the text of those of a float64."""
    return [float(str(value)) for value in values.astype(np.float32).ravel()]


def check_same_scene(saved: SceneFacts, scene: SceneFacts) -> None:
    """Compares what a checkpoint knew with the scene that was loaded.

    Raises:
      CheckpointError: a view that is held out now has been trained on, or the world of the
        Gaussians is not the world of the cameras.
    """
    leaked = set(saved.split.train) & set(scene.split.test)
    if leaked:
        raise CheckpointError(
            f"{len(leaked)} held-out views (first: {min(leaked)}) were trained on by this "
            "checkpoint; use the split of the run that wrote it (config.scene.split)"
        )
    difference = np.abs(saved.normalization - scene.normalization).max()
    if difference > TOLERANCE * np.abs(saved.normalization).max():
        raise CheckpointError(
            "the cameras or points of the scene changed since this checkpoint, so that its "
            "normalized world is another one; restore the files of the scene "
            "(config.scene.path) or config.scene.normalize"
        )

"""Grasps as examples: joints, the object's distances on the grid, and the category."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np

from hand_object.prior.conditions import category_vector
from hand_object.prior.config import Config
from hand_object.prior.grasps import Hand, default_hand, grasp
from hand_object.prior.grid import grid_points
from hand_object.prior.solids import FAMILIES, Distance, read_meshes
from training.data_folder import data_folder
from training.source import Example

EPOCH = 10_000  # grasps; an epoch of the endless training source


@dataclass(frozen=True)
class GraspSource:
    """Grasps of some families. A training grasp follows from seed and position alone.

    Attributes:
      families: of procedural objects.
      meshes: whether the folder of meshes is drawn from, too.
      stream: tells the grasps of training and of each evaluation apart.
    """

    config: Config
    families: tuple[str, ...]
    meshes: bool
    count: int
    stream: int
    hand: Hand = field(default_factory=default_hand, compare=False)

    @cached_property
    def _shapes(self) -> dict[str, Distance]:
        folder = self.config.grasps.meshes
        if folder is None or not self.meshes:
            return {}
        return read_meshes(data_folder(folder, "grasps.meshes", "give a folder of .obj files"))

    @property
    def categories(self) -> tuple[str, ...]:
        return (*self.families, *sorted(self._shapes))

    @property
    def fingerprint(self) -> str:
        config = self.config
        facts = [asdict(config.grasps), asdict(config.grid), self.families, self.stream]
        return json.dumps([*facts, config.seed, self.hand.model.name])

    def __len__(self) -> int:
        return self.count

    def identity(self, index: int) -> str:
        return f"grasp {self.stream}/{index}"

    def __getitem__(self, index: int) -> Example:
        return self._drawn(index)

    def load(self, index: int, position: int) -> Example:
        # Grasps are made up, as many as are asked for.
        return self._drawn(position)

    def _drawn(self, number: int) -> Example:
        settings, grid = self.config.grasps, self.config.grid
        random = np.random.default_rng([self.config.seed, self.stream, number])
        if self._shapes and random.uniform() < settings.mesh_share:
            category = str(random.choice(sorted(self._shapes)))
            shape = self._shapes[category]
        else:
            category = str(random.choice(self.families))
            shape = FAMILIES[category](random)
        held = grasp(self.hand, shape, random)
        shift = random.uniform(-settings.shift, settings.shift, 3)
        points = grid_points(grid.object_size, grid.limit).reshape(-1, 3).astype(np.float64)
        return {
            "joints": (held.joints + shift).astype(np.float32),
            "distances": held.distance(points - shift).astype(np.float32),
            "condition": category_vector(category, self.config.unet.condition),
        }


def training_grasps(config: Config) -> GraspSource:
    return GraspSource(config, seen_families(config), True, EPOCH, 0)


def evaluation_grasps(config: Config) -> dict[str, GraspSource]:
    """New objects of the families that are learned, and a family that is not."""
    count, unseen = config.grasps.evaluated, (config.grasps.held_out,)
    return {
        "seen_families": GraspSource(config, seen_families(config), False, count, 1),
        "held_out_family": GraspSource(config, unseen, False, count, 2),
    }


def seen_families(config: Config) -> tuple[str, ...]:
    return tuple(name for name in FAMILIES if name != config.grasps.held_out)

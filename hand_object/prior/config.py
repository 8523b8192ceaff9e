"""Typed settings of a run that trains a prior: `config.system = "hand_object.prior"`."""

from __future__ import annotations

from dataclasses import dataclass

from hand_object.prior.grid import MINI_GRID, GridConfig
from hand_object.prior.model.unet import MINI_UNET, UnetConfig
from hand_object.prior.solids import FAMILIES
from training.config import TrainConfig
from training.errors import ConfigError
from training.settings import setting


@dataclass(frozen=True)
class GraspsConfig:
    """Which grasps are learned and which are kept for evaluation."""

    # Folder of OBJ meshes, absolute or under PODVISION_DATA, besides the procedural objects.
    meshes: str | None = None
    mesh_share: float = setting(0.3, least=0, below=1)  # of the grasps, if there are meshes
    # Of the procedural families; a mesh of the folder may still be of that kind.
    held_out: str = setting("mug", choices=tuple(FAMILIES))  # never learned, evaluated
    evaluated: int = setting(32, least=1, most=100_000)  # grasps of each evaluation
    shift: float = setting(0.03, least=0, most=1)  # units by which grasps move at random


@dataclass(frozen=True)
class PriorLossConfig:
    """Coefficients of the two kinds of channels."""

    object: float = setting(1.0, above=0, most=1e6)
    hand: float = setting(0.5, above=0, most=1e6)


@dataclass(frozen=True)
class Config(TrainConfig):
    """A run. An epoch is 10,000 grasps; there is no end of them."""

    grid: GridConfig = setting(default=MINI_GRID)
    unet: UnetConfig = setting(default=MINI_UNET)
    grasps: GraspsConfig = setting(factory=GraspsConfig)
    losses: PriorLossConfig = setting(factory=PriorLossConfig)
    unconditional: float = setting(0.2, least=0, below=1)  # share that is not told the category

    def __post_init__(self):
        if self.grid.object_size != self.grid.hand_size:
            raise ConfigError(
                f"grid.object_size = {self.grid.object_size} must be grid.hand_size = "
                f"{self.grid.hand_size}: no autoencoder is trained here that would shrink the "
                "object's grid"
            )
        smallest = self.unet.patch * 2 ** (self.unet.levels - 1)
        if self.grid.hand_size % smallest:
            raise ConfigError(
                f"grid.hand_size = {self.grid.hand_size} must be a multiple of {smallest}, by "
                "which unet.patch and unet.multiples divide it"
            )

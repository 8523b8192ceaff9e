"""TPU slices by name (`v4-32`): how libtpu calls them, what a chip has, where it stands.

A name counts TensorCores for v4, v5p and tpu7x (two a chip) and chips for v5e and v6e. Usable
memory is what libtpu says. Rates of memory and links, and cores and memory of hosts, are as
commonly published and were not measured; those of the links are all of a chip's, in one direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from training.errors import ConfigError
from training.typed import suggestion


@dataclass(frozen=True)
class Generation:
    """A kind of chip.

    Attributes:
      libtpu_name, chip_config: in a topology description.
      usable_gib: memory of one device that programs may use.
      hbm_rate, ici_rate: bytes a second of one device.
      devices_per_chip: JAX devices of one chip.
      host_cores, host_gib: of one host, which has four chips.
      region: the only one that has it, or None.
      shapes: number in the name -> chips along each axis.
    """

    libtpu_name: str
    chip_config: str
    usable_gib: float
    hbm_rate: float
    ici_rate: float
    host_cores: int
    host_gib: float
    shapes: dict[int, tuple[int, ...]]
    devices_per_chip: int = 1
    region: str | None = None


CUBES = {
    8: (2, 2, 1),
    16: (2, 2, 2),
    32: (2, 2, 4),
    64: (2, 4, 4),
    128: (4, 4, 4),
    256: (4, 4, 8),
    512: (4, 8, 8),
}
SQUARES = {
    4: (2, 2),
    8: (2, 4),
    16: (4, 4),
    32: (4, 8),
    64: (8, 8),
    128: (8, 16),
    256: (16, 16),
}
GENERATIONS = {
    "v4": Generation(
        "v4", "megacore", 30.75, 1.2e12, 3.0e11, 240, 400, CUBES, region="us-central2"
    ),
    "v5e": Generation("v5e", "default", 15.75, 8.19e11, 2.0e11, 112, 192, SQUARES),
    "v5p": Generation("v5", "megacore", 95.74, 2.765e12, 6.0e11, 208, 448, CUBES),
    "v6e": Generation("v6e", "default", 31.25, 1.64e12, 4.48e11, 180, 720, SQUARES),
    "tpu7x": Generation(
        "tpu7x", "default", 94.75, 3.69e12, 3.0e11, 224, 960, CUBES, devices_per_chip=2
    ),
}
ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "v7x": "tpu7x"}
CHIPS_PER_HOST = 4


@dataclass(frozen=True)
class Topology:
    """A slice: its name, the generation and the chips along each axis."""

    name: str
    family: str
    shape: tuple[int, ...]

    @property
    def generation(self) -> Generation:
        return GENERATIONS[self.family]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """JAX devices of the slice."""
        return self.chips * self.generation.devices_per_chip

    @property
    def hosts(self) -> int:
        return max(1, self.chips // CHIPS_PER_HOST)

    @property
    def wrap(self) -> tuple[bool, ...]:
        """Which axes are rings: those of whole 4x4x4 cubes, or 16 wide in two dimensions."""
        if len(self.shape) == 3:
            closed = all(size % 4 == 0 for size in self.shape)
            return (closed,) * 3
        return (*(size == 16 for size in self.shape), False)

    def description(self) -> dict[str, Any]:
        """Arguments of `jax.experimental.topologies.get_topology_desc`."""
        sizes = "x".join(map(str, self.shape))
        return dict(
            platform="tpu",
            topology_name=f"{self.generation.libtpu_name}:{sizes}",
            chip_config_name=self.generation.chip_config,
            chips_per_host_bounds=(2, 2, 1),
            num_slices=1,
            wrap=self.wrap,
        )


def names() -> list[str]:
    """Every slice that can be asked for."""
    return [f"{family}-{n}" for family, kind in GENERATIONS.items() for n in kind.shapes]


def topology(name: str) -> Topology:
    """The slice of a name such as `v4-32`.

    Raises:
      ConfigError: it is not in the table.
    """
    family, _, size = name.partition("-")
    family = ALIASES.get(family, family)
    known = GENERATIONS.get(family)
    if known is None or not size.isdecimal() or int(size) not in known.shapes:
        raise ConfigError(f"--topology {name} is not known{suggestion(name, names())}")
    return Topology(f"{family}-{size}", family, known.shapes[int(size)])

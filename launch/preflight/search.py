"""`--search`: the largest batch that fits, for each accumulation and kind of recomputation.

The compiler is the judge. Temporaries grow with the examples of a micro-batch, so that one compiled
program tells about how many would fit; that many are compiled, then fewer until it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from launch.preflight.fit import fits, recomputation, value_of
from launch.preflight.forecast import forecast, seconds_text
from launch.preflight.rows import FAIL, PASS, Row, one_line
from launch.preflight.topology import Topology
from training.config import TrainConfig
from training.errors import PodvisionError

# overrides -> the child's answer
Compile = Callable[[tuple[str, ...]], dict[str, Any]]
ATTEMPTS = 3
MOST_TIMES = 64


@dataclass(frozen=True)
class Candidate:
    """A setting of what decides the memory."""

    batch_size: int
    accumulation: int
    remat: tuple[tuple[str, Any], ...] = ()

    def overrides(self) -> tuple[str, ...]:
        return (
            f"batch_size={self.batch_size}",
            f"accumulation={self.accumulation}",
            *(f"{key}={value}" for key, value in self.remat),
        )

    def text(self) -> str:
        return " ".join(f"--config.{override}" for override in self.overrides())


def search_row(config: TrainConfig, topology: Topology, compile_: Compile) -> Row:
    """Tries every kind of recomputation, and the batch's own and doubled accumulation."""
    lines, facts, best = [], [], None
    for remat in _remats(config):
        for accumulation in (config.accumulation, 2 * config.accumulation):
            found = _largest(config, topology, compile_, remat, accumulation)
            if found is None:
                lines.append(f"{_named(remat)} accumulation {accumulation}: nothing fits")
                facts.append({"remat": dict(remat), "accumulation": accumulation, "fits": False})
                continue
            candidate, figures = found
            time = forecast(figures, topology)
            rate = candidate.batch_size / time.most
            lines.append(
                f"{candidate.text()}: {figures['chip_gib']:.2f} GiB, at least "
                f"{seconds_text(time.least)}, about {seconds_text(time.most)} an update, "
                f"{rate:.4g} examples a second"
            )
            facts.append(
                {
                    "remat": dict(remat),
                    "accumulation": accumulation,
                    "batch_size": candidate.batch_size,
                    "fits": True,
                    "chip_gib": figures["chip_gib"],
                    "examples_per_second": rate,
                }
                | time.as_json()
            )
            if best is None or rate > best[0]:
                best = (rate, candidate)
    if best is None:
        sentence = "nothing that was tried fits; take a larger slice or shard by mesh.fsdp"
        return Row("search", FAIL, sentence, {"tried": facts}, tuple(lines))
    sentence = f"fastest by the compiler's estimates: {best[1].text()}"
    return Row("search", PASS, sentence, {"tried": facts}, tuple(lines))


def _remats(config: TrainConfig) -> Iterator[tuple[tuple[str, Any], ...]]:
    """The config's own first, then every other choice of each key by itself."""
    keys = recomputation(config)
    yield tuple((key, value_of(config, key)) for key in keys)
    for key, choices in keys.items():
        for choice in choices:
            if choice != value_of(config, key):
                yield ((key, choice),)


def _named(remat: tuple[tuple[str, Any], ...]) -> str:
    return " ".join(f"{key}={value}" for key, value in remat)


def _largest(
    config: TrainConfig, topology: Topology, compile_: Compile, remat: Any, accumulation: int
) -> tuple[Candidate, dict[str, Any]] | None:
    """The largest batch that the compiler accepts within a few attempts, with its figures."""
    # The smallest batch of this layout: one example a device in each micro-batch, or the config's
    # number of devices that share one example.
    step = _smallest(config, topology) * accumulation
    size = max(step, config.batch_size // step * step)
    best: tuple[Candidate, dict[str, Any]] | None = None
    for _ in range(ATTEMPTS):
        candidate = Candidate(size, accumulation, remat)
        try:
            figures = compile_(candidate.overrides())
        except PodvisionError as error:
            raise type(error)(f"--search with {candidate.text()}: {one_line(error)}") from error
        if fits(figures, topology):
            if best is None or size > best[0].batch_size:
                best = (candidate, figures)
            wanted = predicted(figures, topology, size, step)
            if wanted <= size:
                break
            size = wanted
        else:
            if best is not None:
                wanted = (best[0].batch_size + size) // 2 // step * step
                if wanted <= best[0].batch_size:
                    break
            else:
                wanted = max(step, size // 2 // step * step)
                if wanted == size:
                    break
            size = wanted
    return best


def predicted(figures: dict[str, Any], topology: Topology, size: int, step: int) -> int:
    """A batch that should just fit, if temporaries grow with the batch; a multiple of `step`."""
    temporary = max(figures["temp_gib"], 1e-6)
    room = topology.generation.usable_gib - (figures["chip_gib"] - temporary)
    times = min(room / temporary, MOST_TIMES)
    return max(step, int(size * times) // step * step)


def _smallest(config: TrainConfig, topology: Topology) -> int:
    """Devices over which a batch is split."""
    mesh = config.mesh
    return topology.devices if mesh.model == -1 else max(1, topology.devices // mesh.model)

"""How long an update will take, as an interval, and what the run will cost.

The lower end is the largest of the rooflines: analytic operations over the chips' peak, bytes over
the rate of their memory, traffic over that of their links, and the compiler's own floor. Nothing
can be faster. The upper end adds up what the compiler estimates for its own fusions one after
another (loops included), kernels at the peak, and traffic that nothing hides; it is an estimate and
no bound: only a measurement on the chips is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch.preflight.figures import clock_hz
from launch.preflight.prices import Price, cost_sentence
from launch.preflight.rows import PASS, Row
from launch.preflight.topology import Topology
from training.record.progress import device_peak


@dataclass(frozen=True)
class Forecast:
    """Seconds of an update; `bounds` names each roofline, `mfu` is the most that can be reached."""

    bounds: Mapping[str, float]
    sequential: float | None
    mfu: float | None

    @property
    def least(self) -> float:
        return max(self.bounds.values())

    @property
    def most(self) -> float:
        return max(self.least, self.sequential or 0.0)

    @property
    def limit(self) -> str:
        """Which roofline is the highest."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    def as_json(self) -> dict[str, Any]:
        return {
            "least_seconds": self.least,
            "estimated_seconds": self.most,
            "bounds": dict(self.bounds),
            "limited_by": self.limit,
            "mfu_at_most": self.mfu,
        }


def forecast(figures: Mapping[str, Any], topology: Topology) -> Forecast:
    """The interval for an update of a compiled program.

    Args:
      figures: of `child.answered`.
    """
    generation, kind = topology.generation, figures["device_kind"]
    peak = device_peak(kind)
    traffic = sum(row["bytes"] for row in figures["collectives"].values()) / generation.ici_rate
    bounds = {"memory": figures["bytes"] / generation.hbm_rate, "links": traffic}
    analytic = None
    if peak is not None:
        analytic = figures["flops_per_update"] / topology.devices / peak
        bounds["arithmetic"] = analytic
    if figures["floor_seconds"] is not None:
        bounds["compiler"] = figures["floor_seconds"]
    sequential, hertz = None, clock_hz(kind)
    if hertz is not None and peak is not None:
        kernels = figures["kernel_flops"] / peak
        sequential = figures["cycles"] / hertz + kernels + traffic
    least = max(bounds.values())
    return Forecast(bounds, sequential, analytic / least if analytic and least else None)


def forecast_row(
    figures: Mapping[str, Any], topology: Topology, total: int, price: Price | None
) -> Row:
    """The row of the table: an update, the run, and its cost."""
    found = forecast(figures, topology)
    hours = (total * found.least / 3600, total * found.most / 3600)
    sentence = (
        f"an update takes at least {seconds_text(found.least)} (limited by {found.limit}), by the "
        f"compiler's estimates about {seconds_text(found.most)}; {total:,} updates are "
        f"{hours[0]:.2f} to {hours[1]:.2f} hours: {cost_sentence(hours, topology.chips, price)}"
    )
    if found.mfu is not None:
        sentence += f"; MFU at most {found.mfu:.0%}"
    if figures["unknown_kernels"]:
        sentence += f"; {figures['unknown_kernels']} kernels of unknown cost are not in it"
    lines = tuple(f"{name:<10} {seconds_text(value)}" for name, value in found.bounds.items())
    facts = found.as_json() | {"hours": list(hours), "chips": topology.chips}
    return Row("forecast", PASS, sentence, facts, lines)


def seconds_text(seconds: float) -> str:
    """Seconds with three digits, in milliseconds where they are short."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"

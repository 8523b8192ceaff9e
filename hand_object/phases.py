"""When the phases of a stage are active: windows against the length of the stage.

A phase that never comes is an error of the config, found before anything is trained. Windows are
half-open, in applied updates of the stage.
"""

from __future__ import annotations

from itertools import pairwise

from hand_object.loss_config import BalanceConfig, PhaseConfig, PhasesConfig
from training.errors import ConfigError
from training.verdict import Table


def windows(config: PhasesConfig, total: int) -> dict[str, tuple[int, int]]:
    """[start, stop) of each phase that is on, within a stage of `total` updates."""
    return {name: _window(phase, total) for name, phase in config.enabled().items()}


def _window(phase: PhaseConfig, total: int) -> tuple[int, int]:
    return phase.start, total if phase.stop is None else min(phase.stop, total)


def check_phases(config: PhasesConfig, balance: BalanceConfig, total: int) -> None:
    """Raises ConfigError where a phase would not act, or how several overlap is not said.

    Args:
      total: updates of the stage.
    """
    enabled = config.enabled()
    if len(enabled) > 1:
        _check_overlap(config, enabled)
    for name, phase in enabled.items():
        if phase.share >= balance.most:
            raise ConfigError(
                f"config.phases.{name}.share = {phase.share:g} must be below balance.most = "
                f"{balance.most:g}, which no term may exceed"
            )
    least = max(config.least_updates, 2 * balance.ramp)
    counts = {n: max(stop - start, 0) for n, (start, stop) in windows(config, total).items()}
    if all(count >= least for count in counts.values()):
        return
    found = ", ".join(
        f"{name} {_written(enabled[name])} has {count:,} of them" for name, count in counts.items()
    )
    needed = max(phase.start + least for phase in enabled.values())
    raise ConfigError(
        f"config.phases does not fit a stage of {total:,} updates: {found}; each needs {least:,} "
        f"(the larger of phases.least_updates = {config.least_updates:,} and twice balance.ramp = "
        f"{balance.ramp:,}); set config.total.updates to {max(needed, total):,} or more, or move "
        "or widen the windows"
    )


def _check_overlap(config: PhasesConfig, enabled: dict[str, PhaseConfig]) -> None:
    if config.overlap is None:
        raise ConfigError(
            f"config.phases has {' and '.join(enabled)} on, but does not say how they overlap; set "
            "phases.overlap to exclusive (one at a time) or cumulative (later ones join in)"
        )
    phases = list(enabled.items())
    for (name, phase), (other, later) in pairwise(phases):
        where = f"{name} {_written(phase)} and {other} {_written(later)}"
        stop = phase.stop
        if config.overlap == "cumulative":
            if stop is not None and stop < later.start:
                raise ConfigError(
                    f"config.phases is cumulative, but between {where} there is a gap; let the "
                    f"first end at {later.start} or later, or at None"
                )
            continue
        if stop is None or stop > later.start:
            raise ConfigError(
                f"config.phases is exclusive, but {where} intersect; set phases.{name}.end = "
                f"{later.start}, or phases.overlap = cumulative"
            )
        if stop < later.start and not config.gaps:
            raise ConfigError(
                f"config.phases is exclusive, and between {where} are {later.start - stop} updates "
                "without a phase; set phases.gaps = True if that is meant"
            )


def _written(phase: PhaseConfig) -> str:
    return f"[{phase.start}, {'end' if phase.stop is None else phase.stop})"


def phase_table(config: PhasesConfig, total: int) -> Table:
    """Which phases are active when: an interval of updates a row."""
    found = windows(config, total)
    edges = sorted({0, total, *(edge for window in found.values() for edge in window)})
    rows = []
    for start, stop in pairwise(edges):
        active = [name for name, window in found.items() if window[0] <= start < window[1]]
        rows.append((f"{start}-{stop - 1}", ", ".join(active) or "none", stop - start))
    return Table("Phases", ("updates", "active", "number"), rows)

"""Whether the update fits a device, in the compiler's numbers; and what would help if not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from launch.preflight.rows import FAIL, PASS, WARN, Row
from launch.preflight.topology import Topology
from training.config import TrainConfig
from training.settings import limits_of

# Of the usable memory. What is left is for the runtime and for batches on their way.
CLOSE = 0.9


def fits(figures: Mapping[str, Any], topology: Topology) -> bool:
    """Whether the compiler accepted the program and its sum is within the usable memory."""
    return "refused" not in figures and figures["chip_gib"] <= topology.generation.usable_gib


def memory_row(figures: Mapping[str, Any], topology: Topology, config: TrainConfig) -> Row:
    """The verdict on memory."""
    usable = topology.generation.usable_gib
    facts = {"usable_gib": usable} | {
        key: value for key, value in figures.items() if key.endswith("_gib") or key == "refused"
    }
    if "refused" in figures:
        needed = figures.get("needed_gib")
        over = ""
        if needed is not None:
            more = needed - figures["available_gib"]
            over = f" by {more:.2f} GiB ({needed:.2f} needed, {figures['available_gib']:.2f} there)"
        sentence = (
            f"the compiler refuses the update: it does not fit a device of {topology.name}{over}; "
            f"{help_text(config)}"
        )
        return Row("memory", FAIL, sentence, facts, (figures["refused"],))
    total, peak = figures["chip_gib"], figures["peak_gib"]
    numbers = (
        f"{total:.2f} of {usable} GiB a device (arguments {figures['argument_gib']:.2f} + outputs "
        f"{figures['output_gib']:.2f} - aliased {figures['alias_gib']:.2f} + temporaries "
        f"{figures['temp_gib']:.2f} + code {figures['generated_code_gib']:.2f}); libtpu's peak "
        f"{peak:.2f}"
    )
    if total > usable:
        sentence = f"{numbers}: {total - usable:.2f} GiB too much; {help_text(config)}"
        return Row("memory", FAIL, sentence, facts)
    if total > CLOSE * usable:
        return Row("memory", WARN, f"{numbers}: little is left for the runtime", facts)
    return Row("memory", PASS, numbers, facts)


def help_text(config: TrainConfig) -> str:
    """What makes a program smaller, of what this config has."""
    ideas = []
    for key, choices in recomputation(config).items():
        value = value_of(config, key)
        other = [str(choice) for choice in choices if choice != value]
        ideas.append(f"config.{key} = {value} (choices: {', '.join(other)})")
    if config.mesh.fsdp == 1:
        ideas.append("the state sharded by config.mesh.fsdp")
    ideas += [
        f"a smaller config.batch_size than {config.batch_size}",
        f"more config.accumulation than {config.accumulation}",
    ]
    return f"what helps: {'; '.join(ideas)}; --search tries them"


def recomputation(config: Any, prefix: str = "") -> dict[str, tuple[Any, ...]]:
    """Keys named `remat` (what is computed again instead of kept), with the values they take."""
    found: dict[str, tuple[Any, ...]] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= recomputation(value, f"{prefix}{field.name}.")
        elif field.name == "remat":
            choices = (False, True) if isinstance(value, bool) else limits_of(field).choices
            found[prefix + field.name] = choices or (value,)
    return found


def value_of(config: Any, key: str) -> Any:
    """The value of a dotted key."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


def traffic_row(figures: Mapping[str, Any], topology: Topology) -> Row:
    """The collectives of an update."""
    traffic: Mapping[str, Mapping[str, Any]] = figures["collectives"]
    if not traffic:
        return Row("traffic", PASS, "no collective: nothing travels between devices", {})
    whole = sum(kind["bytes"] for kind in traffic.values())
    parts = [
        f"{kind['runs']:g} {name}" + (" in pairs" if kind["asynchronous"] else "")
        for name, kind in traffic.items()
    ]
    milliseconds = 1e3 * whole / topology.generation.ici_rate
    sentence = (
        f"{', '.join(parts)} an update; a device sends {whole / 2**20:,.1f} MiB, "
        f"{milliseconds:.2g} ms on all its links"
    )
    return Row("traffic", PASS, sentence, {"collectives": dict(traffic), "bytes": whole})

"""A few batches through the run's own source and stream: shapes, values, and how fast."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from launch.preflight.rows import FAIL, PASS, WARN, Row, one_line
from launch.preflight.topology import Topology
from training.errors import DataFault, PodvisionError
from training.guards.start import batch_keys, split_overlap
from training.program import Program
from training.stream import ExampleStream

BATCHES, ROWS = 3, 8


def data_row(program: Program) -> Row:
    """The first rows of the first batches, read as the run would read them.

    Never raises for data of the user's: what is wrong with them is the sentence of the row.
    """
    try:
        facts, problems = _read(program)
    except (PodvisionError, OSError) as error:
        return Row("data", FAIL, one_line(error))
    if problems:
        return Row("data", FAIL, problems[0], facts | {"problems": problems}, tuple(problems[1:]))
    keys = ", ".join(f"{name} {key['dtype']}{key['shape']}" for name, key in facts["keys"].items())
    sentence = (
        f"{facts['examples']:,} examples; {facts['read']} of them read, {facts['replaced']} "
        f"replaced, {facts['per_core']:.3g} examples a second per core: {keys}"
    )
    state = WARN if facts["replaced"] else PASS
    lines = [
        f"{name:<12} {key['least']:.4g} to {key['most']:.4g}"
        for name, key in facts["keys"].items()
        if key["least"] is not None
    ]
    return Row("data", state, sentence, facts, tuple(lines))


def rate_row(facts: dict[str, Any], batch_size: int, seconds: float, topology: Topology) -> Row:
    """Whether the hosts of the slice can read as fast as the chips could learn.

    Args:
      facts: of `data_row`; seconds: the least time of an update.
    """
    needed = batch_size / seconds / topology.hosts
    cores = topology.generation.host_cores
    able = facts["per_core"] * cores
    sentence = (
        f"at the forecast's fastest a host needs {needed:.3g} examples a second, which is "
        f"{needed / facts['per_core']:.3g} cores of this machine's speed; it has {cores}"
    )
    found = {"needed_per_host": needed, "cores_needed": needed / facts["per_core"], "cores": cores}
    if able < needed:
        sentence += "; the chips will wait for data: prepare it in smaller or faster pieces"
    return Row("data rate", WARN if able < needed else PASS, sentence, found)


def _read(program: Program) -> tuple[dict[str, Any], list[str]]:
    config, sources = program.config, program.task.sources()
    overlap = split_overlap(sources.train, sources.evaluation)
    problems = [] if overlap.passed else [overlap.sentence]
    rows = np.arange(min(config.batch_size, ROWS))
    stream = ExampleStream(sources.train, config.seed, config.batch_size, rows, config.loader)
    batches = min(BATCHES, program.total_updates)
    keys: dict[str, Any] = {}
    used, started = _cpu_seconds(), time.perf_counter()
    try:
        for step in range(batches):
            batch = stream.batch(step)
            task = program.task_of(program.plan.variant(step))
            fits = batch_keys(task, dict(batch))  # type: ignore[arg-type]
            if not fits.passed:
                problems.append(fits.sentence)
                break
            for name, array in batch.items():
                _take_in(keys, problems, name, array)
    except DataFault as error:
        problems.append(one_line(error))
    finally:
        stream.close()
    wall, used = time.perf_counter() - started, _cpu_seconds() - used
    facts = {
        "examples": len(sources.train),
        "read": stream.read,
        "replaced": stream.replaced,
        "seconds": wall,
        # Reading may wait for a disk: neither that nor more threads than cores count as speed.
        "per_core": stream.read / max(used, wall / (os.cpu_count() or 1), 1e-9),
        "keys": keys,
    }
    return facts, problems


def _take_in(keys: dict[str, Any], problems: list[str], name: str, array: np.ndarray) -> None:
    """Adds an array's values to what is known of its key; one sentence for values not finite."""
    known = keys.setdefault(
        name,
        {"shape": list(array.shape[1:]), "dtype": str(array.dtype), "least": None, "most": None},
    )
    if array.size == 0 or array.dtype.kind not in "iufb":
        return
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        sentence = f"batch[{name!r}] has values that are not finite, first in row {row}"
        if not any(problem.startswith(f"batch[{name!r}]") for problem in problems):
            problems.append(f"{sentence}; repair or leave out that example")
        return
    least, most = float(array.min()), float(array.max())
    known["least"] = least if known["least"] is None else min(known["least"], least)
    known["most"] = most if known["most"] is None else max(known["most"], most)


def _cpu_seconds() -> float:
    """CPU seconds of this process and of reader processes that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system

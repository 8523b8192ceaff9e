"""Numbers of a run that follow from its config: batches, updates, learning rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from launch.preflight.rows import FAIL, PASS, Row
from launch.preflight.topology import Topology
from training.config import TrainConfig
from training.guards.start import phase_windows
from training.program import Program
from training.schedules import longest_warmup

BARS = "▁▂▃▄▅▆▇█"
POINTS = 32


def sparkline(values: Sequence[float]) -> str:
    """A line of bars, the highest for the largest value; the lowest stands for zero."""
    top = max(values)
    if top <= 0:
        return BARS[0] * len(values)
    return "".join(BARS[round(max(value, 0) / top * (len(BARS) - 1))] for value in values)


def batch_row(program: Program, config: TrainConfig, topology: Topology) -> Row:
    """How a global batch is cut; that it divides over the mesh is known from the child."""
    total = program.total_updates
    warmup = longest_warmup(config.optimizer, total)
    examples = program.train_examples
    epochs = f", {total * config.batch_size / examples:.1f} epochs" if examples else ""
    per_device = config.batch_size / topology.devices / config.accumulation
    sentence = (
        f"{total:,} updates of {config.batch_size} examples{epochs}; {per_device:g} examples a "
        f"device in each of {config.accumulation} micro-batches; warm-up {warmup:,} updates "
        f"({warmup / total:.1%}); a checkpoint every {program.plan.save_every:,}, an evaluation "
        f"every {program.plan.evaluate_every:,} updates"
    )
    facts = {
        "updates": total,
        "batch_size": config.batch_size,
        "accumulation": config.accumulation,
        "examples_per_device": per_device,
        "warmup_updates": warmup,
        "train_examples": examples,
        "save_every": program.plan.save_every,
        "evaluate_every": program.plan.evaluate_every,
    }
    return Row("arithmetic", PASS, sentence, facts)


def schedule_row(program: Program) -> Row:
    """The learning rate of each group over the run; its properties were checked already."""
    steps = np.unique(np.linspace(0, program.total_updates - 1, POINTS).astype(np.int64))
    lines, facts = [], {}
    for name, schedule in program.optimizer.schedules.items():
        rates = [float(rate) for rate in np.asarray(schedule(steps), np.float64)]
        lines.append(f"{name:<12} {sparkline(rates)} {rates[0]:.2g} .. {max(rates):.2g} "
                     f".. {rates[-1]:.2g}")  # fmt: skip
        facts[name] = {"first": rates[0], "highest": max(rates), "last": rates[-1]}
    count = len(facts)
    groups = f"{count} group{'s' if count > 1 else ''}"
    sentence = f"learning rates of {groups}: positive at the start, never rising after warm-up"
    return Row("schedule", PASS, sentence, facts, tuple(lines))


def windows_row(program: Program) -> Row:
    """Every loss term becomes active inside of the run."""
    verdict = phase_windows(program.task, program.total_updates)
    terms = {
        name: None if term.window is None else list(term.window)
        for name, term in program.task.loss_terms.items()
    }
    return Row("phases", PASS if verdict.passed else FAIL, verdict.sentence, {"windows": terms})

"""The overfit test: a few fixed examples, no augmentation, the system's own success metric.

A config that cannot learn four examples by heart will not learn a data set. Every parameter group
must also have had a gradient. Nothing is written: no work folder, no checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax

from training.config import Duration, TrainConfig
from training.evaluate import evaluate_state
from training.mesh import Layout, batch_shards, make_mesh
from training.program import Program
from training.stream import ExampleStream
from training.task import Example, Source, Sources, Task, Verdict


@dataclass(frozen=True)
class FirstExamples:
    """The first few examples of a source."""

    source: Source
    count: int

    @property
    def fingerprint(self) -> str:
        return f"{self.source.fingerprint}[:{self.count}]"

    def __len__(self) -> int:
        return min(self.count, len(self.source))

    def __getitem__(self, index: int) -> Example:
        return self.source[index]

    def identity(self, index: int) -> str:
        return self.source.identity(index)


class FixedExamples:
    """A task whose every source is the same few training examples, unaugmented."""

    def __init__(self, task: Task, examples: int):
        self._task = task.without_augmentation()
        fixed = FirstExamples(self._task.sources().train, examples)
        self._sources = Sources(fixed, {"overfit": fixed})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def sources(self) -> Sources:
        return self._sources


def overfit(
    task: Task,
    config: TrainConfig,
    examples: int,
    updates: int,
    say: Callable[[str], None],
) -> list[Verdict]:
    """Trains on fixed examples and judges the result.

    Returns:
      The verdict on the success metric, then one for each parameter group.
    """
    layout = Layout(make_mesh(config.mesh))
    shards = batch_shards(layout.mesh)
    batch_size = -(-examples // shards) * shards
    config = replace(config, batch_size=batch_size, accumulation=1, total=Duration(updates=updates))
    fixed: Any = FixedExamples(task, examples)
    program = Program(fixed, config, layout, updates)
    source = fixed.sources().train
    stream = ExampleStream(source, config.seed, batch_size, layout.rows(batch_size), config.loader)
    largest: dict[str, float] = {}
    with jax.set_mesh(layout.mesh):
        state = program.initial_state()
        before = evaluate_state(program, state)
        for step in range(updates):
            batches = layout.put_batches([stream.batch(step)], batch_size)
            state, read = program.step(state, batches)
            (row,) = read()
            for name, value in row.items():
                if name.startswith("grad_norm/"):
                    group = name.removeprefix("grad_norm/")
                    largest[group] = max(largest.get(group, 0.0), value)
            if (step + 1) % max(1, updates // 10) == 0:
                say(f"update {step + 1:>5}/{updates}  loss {row['loss']:.5g}")
        after = evaluate_state(program, state)
    stream.close()
    verdicts = [fixed.overfit_verdict(before, after)]
    for group, norm in largest.items():
        sentence = f"largest gradient norm of the parameter group {group!r}: {norm:.3e}"
        verdicts.append(Verdict("zero-gradient", norm > 0.0, sentence))
    return verdicts

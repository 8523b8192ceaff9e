"""The overfit test: a few fixed examples, no augmentation, the system's own success metric.

A config that cannot learn four examples by heart will not learn a data set. Every parameter group
must also have had a gradient. No checkpoint is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax

from training.capabilities import Augmented
from training.config import Duration
from training.evaluation import evaluate_state
from training.loss import Batch
from training.mesh import Layout, batch_shards, make_mesh
from training.program import Program
from training.source import FirstExamples
from training.state import TrainState
from training.step import replay_reasons
from training.storage import PathLike, as_path, replace_text
from training.stream import ExampleStream
from training.task import Task, with_config
from training.verdict import Verdict

VERDICT_FILE = "overfit.json"


def write_verdict(workdir: PathLike, verdicts: Sequence[Verdict]) -> None:
    """Leaves `overfit.json`, so that the report of a run says whether it could have learned."""
    content = {
        "passed": all(verdict.passed for verdict in verdicts),
        "sentence": "; ".join(verdict.sentence for verdict in verdicts),
    }
    replace_text(as_path(workdir) / VERDICT_FILE, json.dumps(content, indent=1))


def read_verdict(workdir: PathLike) -> Verdict | None:
    """What `write_verdict` left in a work folder, as a warning where it failed; None if nothing."""
    path = as_path(workdir) / VERDICT_FILE
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return Verdict("overfit", content["passed"], content["sentence"], warning=True)


def overfit(task: Task, examples: int, updates: int, say: Callable[[str], None]) -> list[Verdict]:
    """Trains on fixed examples and judges the result.

    Returns:
      The verdict on the success metric, then one for each parameter group.
    """
    layout = Layout(make_mesh(task.config.mesh))
    shards = batch_shards(layout.mesh)
    # Every shard needs a row: where examples are too few, the stream repeats some in a batch.
    batch_size = -(-examples // shards) * shards
    if isinstance(task, Augmented):
        task = task.without_augmentation()  # type: ignore[assignment]
    config = replace(
        task.config, batch_size=batch_size, accumulation=1, total=Duration(updates=updates)
    )
    source = FirstExamples(task.sources().train, examples)
    program = Program(with_config(task, config), layout, len(source))
    stream = ExampleStream(source, config.seed, batch_size, layout.rows(batch_size), config.loader)
    # Group -> gradient norm over all updates: some groups have none at first.
    largest: dict[str, float] = {}
    with jax.set_mesh(layout.mesh):
        state = program.initial_state()
        before = evaluate_state(program, state, {"overfit": source})
        for step in range(updates):
            batches = layout.put_batches([stream.batch(step)], batch_size)
            program, state, row = _update(program, state, batches, step)
            for name, value in row.items():
                if name.startswith("grad_norm/"):
                    group = name.removeprefix("grad_norm/")
                    largest[group] = max(largest.get(group, 0.0), value)
            if (step + 1) % max(1, updates // 10) == 0:
                say(f"update {step + 1:>5}/{updates}  loss {row['loss']:.5g}")
        after = evaluate_state(program, state, {"overfit": source})
    stream.close()
    verdicts = [program.task.overfit_verdict(before, after)]
    quiet_groups = task.guards().quiet_groups
    return verdicts + [
        _group_verdict(group, norm, quiet_groups.get(group, 0), updates)
        for group, norm in largest.items()
    ]


def _group_verdict(group: str, norm: float, quiet: int, updates: int) -> Verdict:
    """Whether a parameter group ever had a gradient, unless it takes part only later."""
    sentence = f"largest gradient norm of the parameter group {group!r}: {norm:.3e}"
    if norm == 0.0 and quiet >= updates:
        sentence += f" (it takes part from update {quiet} on)"
    return Verdict("zero-gradient", norm > 0.0 or quiet >= updates, sentence)


def _update(
    program: Program, state: TrainState, batches: Batch, step: int
) -> tuple[Program, TrainState, dict[str, float]]:
    """One update; where the task asks for more capacity, grown and made again."""
    while True:
        state, read = program.step(state, batches, program.plan.variant(step))
        (row,) = read()
        reasons = [r for r in replay_reasons(program.task) if row[f"suppressed/{r}"] > 0]
        if not reasons:
            return program, state, row
        program, state = program.resized(state, ", ".join(reasons))

"""A run of the toy task with every guard of the core on, for injecting faults into.

The order of things is that of `training.loop`: program, checks before the start, updates, and the
watches over the metrics of each update; without work folder, checkpoints and evaluation.
"""

from __future__ import annotations

import dataclasses

import jax

from tests.training.toy import ToyTask, toy_program
from training.config import GuardConfig, MeshConfig, OptimizerConfig, TrainConfig
from training.errors import GuardStop
from training.guards.book import STEP, GuardBook
from training.guards.start import run_start_guards
from training.guards.watch import watches
from training.mesh import Layout, make_mesh
from training.schedules import longest_warmup
from training.stream import ExampleStream, prefetched

CONFIG = TrainConfig(
    "toy",
    batch_size=16,
    mesh=MeshConfig(data=1, model=-1),
    optimizer=OptimizerConfig(learning_rate=5e-2),
    guards=GuardConfig(max_consecutive_skips=5),
)


class ToyRun:
    """`train(n)` makes n updates; afterwards `rows`, `findings` and `state` can be looked at."""

    def __init__(self, task=None, total=200, **changes):
        self.config = dataclasses.replace(CONFIG, **changes)
        self.task = task or ToyTask()
        self.layout = Layout(make_mesh(self.config.mesh))
        self.program = toy_program(self.task, self.config, self.layout, total)
        self.book = GuardBook(self.config.guards, self.task.guards().names)
        self.rows, self.findings = [], []
        with jax.set_mesh(self.layout.mesh):
            self.state = self.program.initial_state()

    def train(self, updates):
        size = self.config.batch_size
        stream = ExampleStream(
            self.task.sources().train, 0, size, self.layout.rows(size), self.config.loader
        )
        warmup = longest_warmup(self.config.optimizer, self.program.total_updates)
        guards = watches(self.config.guards, self.task.loss_terms, self.task.guards(), warmup)
        plan = [(step, 1) for step in range(updates)]
        with jax.set_mesh(self.layout.mesh):
            run_start_guards(self.book, self.program, stream, self.state, 0)
            for chunk in prefetched(stream, plan, self.layout):
                self.state, read = self.program.step(self.state, chunk.device)
                self.rows += read()
                self._watch(guards, chunk.first_step + 1, self.rows[-1])
        stream.close()
        return self

    def _watch(self, guards, step, row):
        for watch in guards:
            finding = watch.check(step, row)
            if finding is None:
                continue
            self.findings.append((step, finding))
            if self.book.record(finding, STEP):
                raise GuardStop(finding.name, finding.sentence)

    def column(self, name):
        return [row[name] for row in self.rows]

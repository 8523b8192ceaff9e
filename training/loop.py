"""The train loop: `fit` trains or resumes a task in a work folder. Read this file top-down.

One pass: take the next batches, refresh the state if it is due, dispatch the step, look at the
metrics of the call before (the device stays busy meanwhile), and evaluate and save where the plan
says so. If any host was asked to stop, the state is saved and nothing else is done: a preempted
host has half a minute. A refresh of step N comes before the update that follows it: a checkpoint of
step N holds the state before, and a resumed run makes the refresh first. Decisions depend on the
step and on replicated numbers only, so that every process takes them alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import jax

from training import config_reads, distributed, stop
from training.capabilities import Witnessed
from training.checkpoint.best_metric import check_best_metric
from training.checkpoint.resume import data_position, saved_facts
from training.errors import DataFault, GuardStop, PodvisionError
from training.evaluation import evaluate_state, write_evaluation
from training.guards.book import EVALUATION, LOG, STEP
from training.guards.watch import restart_scales
from training.mesh import Layout, make_mesh
from training.open_run import OpenRun
from training.program import ReadMetrics, called
from training.record.recorder import Evidence
from training.record.run_folder import (
    DONE,
    PREEMPTED,
    held_run_folder,
    ledger_table,
    mark,
    write_table,
)
from training.resize import grow, settled, spare
from training.step import replay_reasons
from training.storage import PathLike
from training.stream import Chunk, prefetched
from training.task import Task
from training.verdict import Verdict


def fit(
    task: Task,
    workdir: PathLike,
    overrides: Sequence[str] = (),
    allow_config_change: Sequence[str] = (),
) -> str:
    """Trains to the end of the plan, resuming from the newest checkpoint of the work folder.

    Returns:
      "done", or "preempted" after a clean stop on request; both with everything saved.

    Raises:
      PodvisionError: refused (exit 2), stopped by a guard (3) or by unreadable data (4).
    """
    layout = Layout(make_mesh(task.config.mesh))
    with held_run_folder(workdir, distributed.is_main()), jax.set_mesh(layout.mesh):
        run = Run(task, workdir, layout, overrides, allow_config_change)
        # What holds if `train` raises anything else than an error for the user.
        outcome, reason = "stopped", "the program ended with an unexpected error"
        try:
            outcome = run.train()
            reason = "all updates made" if outcome == "done" else "asked to stop; all is saved"
        except PodvisionError as error:
            reason = str(error)
            if isinstance(error, DataFault):
                # The stream raises it, so that the guard book has not heard of it.
                run.book.record(Verdict("data-replaced", False, reason), STEP)
            raise
        finally:
            run.close(outcome, reason)
    return outcome


class Run(OpenRun):
    """One launch: `train` is the loop; the other methods are its steps."""

    # The call that is still running on the device; its metrics are looked at one call later.
    pending: tuple[Chunk, ReadMetrics] | None = None
    # Whether it is still open which keys of the config are of no use.
    config_unjudged: bool = False

    def train(self) -> str:
        """Trains until all is made, or any host is to stop. Returns "done" or "preempted"."""
        # A marker of an earlier launch would say that this one has ended.
        self._mark(None)
        # A resumed run does not read what only a fresh start needs, and the start was judged.
        self.config_unjudged = self.resumed is None and config_reads.is_watched(self.config)
        try:
            if self.step < self.plan.total:
                distributed.raise_if_stopping()
                self.check_before_start()
            else:
                self.progress.say(f"all {self.plan.total} updates were made before")
            self._catch_up()
        except stop.StopRequested:
            return self._preempted()
        # Closed on every way out: it reads ahead in threads, for which an exit would wait.
        with self.watchdog, contextlib.closing(self._chunks()) as chunks:
            try:
                self._make_all(chunks)
            except stop.StopRequested:
                # Here, because it may take long until a reader that waits for its data is closed.
                return self._preempted()
        self.store.wait()
        self._mark(DONE)
        return "done"

    def _make_all(self, chunks: Iterator[Chunk]) -> None:
        """The loop.

        Raises:
          StopRequested: between updates, with the state of `self.step` in hand.
        """
        while True:
            distributed.raise_if_stopping()
            with self.meter.waiting(), distributed.interruptible():
                chunk = next(chunks, None)
            if chunk is None:
                return
            if self.plan.refreshes(chunk.first_step):
                self._refresh(chunk)
            self._make(chunk)
            self.store.poll()
            # Before an evaluation, which a preempted host has no time for.
            distributed.raise_if_stopping()
            if self._boundary(self.step):
                # The log takes no line of a step before that of the evaluation.
                self._drain()
            self._evaluate_and_save()
            if self.config_unjudged:
                self._judge_config()

    def _mark(self, marker: str | None) -> None:
        if self.main:
            mark(self.workdir, marker, self.step)

    def _preempted(self) -> str:
        """Saves first; then nothing is left to do. Returns the outcome."""
        self._drain()
        if self.step > (self.resumed or 0) and self.step not in self.saved:
            self._save(None)
        self.store.wait()
        self._mark(PREEMPTED)
        self.progress.say(f"asked to stop: all is saved up to step {self.step}")
        return "preempted"

    def _catch_up(self) -> None:
        """The evaluation of the first step, or one that a stop left out."""
        if self.step == 0 and not self.config.evaluation.at_start:
            return
        due = self.step == 0 or self.plan.evaluates(self.step)
        if due and not any(row["step"] == self.step for row in self.evaluations):
            self._evaluate()

    def _chunks(self):
        return prefetched(self.stream, self.plan.calls(self.step), self.layout)

    def _make(self, chunk: Chunk) -> None:
        """Starts the updates of a call, then looks at the metrics of the call before."""
        for i, batch in enumerate(chunk.host):
            step = chunk.first_step + i + 1
            self.recorder.remember(step, batch["position"], batch["index"], batch)
        # A trace of the compiler would hide the updates.
        if self.program.is_compiled(chunk.updates, self.plan.variant(chunk.first_step)):
            self.profiler.between(chunk.first_step, self._settle)
        # After a refresh the state is neither that of a checkpoint of this step nor of the next.
        read = self.dispatch(chunk, may_stop=not self.plan.refreshes(chunk.first_step))
        self.step = chunk.first_step + chunk.updates
        self._drain()
        self.pending = (chunk, read)
        if replay_reasons(self.program.task):
            # What was held back must be made before the next call may run.
            self.pending = None
            made = []
            for part in settled(self, chunk, read()):
                self._consume(*part)
                made += part[1]
            spare(self, made)

    def dispatch(self, chunk: Chunk, may_stop: bool = False) -> ReadMetrics:
        """Starts the updates of a call on the devices.

        Raises:
          StopRequested: if it may, while the step is compiled; the state is untouched.
        """
        variant = self.plan.variant(chunk.first_step)
        if not self.program.is_compiled(chunk.updates, variant):
            call = distributed.interruptible_call if may_stop else called
            with self.interlude("compile"):
                self.program.compile_step(self.state, chunk.device, variant, call)
        with jax.profiler.StepTraceAnnotation("train", step_num=chunk.first_step):
            self.state, read = self.program.step(self.state, chunk.device, variant)
        return read

    def _settle(self) -> None:
        """Waits until the devices have nothing to do; not a step's time.

        Metrics stay unread: the other hosts look at them one call later, and so must this one.
        """
        with self.meter.pause(), self.watchdog.paused():
            jax.block_until_ready(self.state)

    @contextlib.contextmanager
    def interlude(self, event: str) -> Iterator[None]:
        """Time that is not a step's: compilation, evaluation, a save."""
        with self.events.measure(event, self.step), self.meter.pause(), self.watchdog.paused():
            yield

    def _drain(self) -> None:
        """Waits for the call that is still running, if one is, and looks at its metrics."""
        if self.pending is not None:
            (chunk, read), self.pending = self.pending, None
            self._consume(chunk, read())

    def _consume(self, chunk: Chunk, rows: list[dict[str, float]]) -> None:
        """Looks at the metrics of the updates of a call: guards, log, progress."""
        if rows:
            self.meter.step(len(rows))
        for i, row in enumerate(rows):
            step = chunk.first_step + i + 1
            for watch in self.watches:
                finding = watch.check(step, row)
                if finding is not None:
                    self._on_finding(finding, step, row)
            if self.plan.logs(step):
                self._log(step, row)
        for name in [*(watch.name for watch in self.watches), "hang", "data-replaced"]:
            self.book.count(name, len(rows))
        last = chunk.first_step + len(rows)
        median = self.meter.median_seconds() if self.plan.logs(last) else None
        self.watchdog.beat(last, median)
        self.progress.step(last)

    def _log(self, step: int, row: Mapping[str, float]) -> None:
        values = {f"train/{name}": value for name, value in row.items() if name != "replay"}
        values |= self.meter.summary() | {"data/replaced": float(self.stream.replaced)}
        self.writer.write(step, values)
        self.progress.log(step, values)
        lap = self.meter.lap()
        if lap.updates:
            self.events.train(step, *lap)

    def _on_finding(self, finding: Verdict, step: int, row: Mapping[str, float]) -> None:
        # A run may trip at every step; what is not recorded should not cost a transfer.
        evidence = self._evidence(step, row) if self.recorder.records_next else Evidence()
        folder = self.recorder.trip(step, finding.name, finding.sentence, evidence)
        recorded = f"; recorded in {folder}" if folder else ""
        self.progress.say(f"{finding.name}: {finding.sentence}{recorded}")
        if self.book.record(finding, STEP):
            self._log(step, row)  # whether or not it is a log step
            raise GuardStop(finding.name, finding.sentence)

    def _evidence(self, step: int, row: Mapping[str, float]) -> Evidence:
        earlier = [saved for saved in (*self.store.steps(), *self.saved) if saved < step]
        return Evidence(
            losses={n: v for n, v in row.items() if n.split("/")[0] == "loss"},
            gradient_norms={n: v for n, v in row.items() if n.startswith("grad_norm")},
            key_data=jax.device_get(jax.random.key_data(self.state.key)),
            key_impl=str(jax.random.key_impl(self.state.key)),
            # Also one that is still being written: it will be there when the step is replayed.
            checkpoint=self.store.folder.step_path(max(earlier)) if earlier else None,
        )

    def _boundary(self, step: int) -> bool:
        return self.plan.evaluates(step) or self.plan.saves(step) or self.plan.refreshes(step)

    def _evaluate_and_save(self) -> None:
        """What is due after this step."""
        metrics = self._evaluate() if self.plan.evaluates(self.step) else None
        if self.plan.saves(self.step):
            self._save(metrics)

    def _judge_config(self) -> None:
        """Names keys that are set and not read, once all that reads keys has run."""
        if not (self.evaluations and self.saved and (self.plan.refresh is None or self.ledger)):
            return
        self.config_unjudged = False
        # So late it is a warning: what was learned is not wrong, only not what somebody wanted.
        verdict = replace(config_reads.verdict(self.config), warning=True)
        self.book.record(verdict, LOG)
        if not verdict.passed:
            self.progress.say(f"{verdict.name}: {verdict.sentence}")

    def _refresh(self, chunk: Chunk) -> None:
        """Rewrites the state before the updates of a call."""
        # The first of the call: the plan cuts calls so that a refresh is due before no other.
        batch = {name: array[0] for name, array in chunk.device.items()}
        self.state, row = self.program.refresh(self.state, batch)
        if self.program.refresh_changes_loss:
            restart_scales(self.watches)
        self.ledger.append({"step": float(self.step), **row})
        self.writer.write(self.step, row)
        if self.main:
            write_table(self.workdir, "ledger", ledger_table(self.ledger))
        for verdict in self.program.task.guards().refresh(self.ledger):
            self.book.require(verdict, LOG)
        grow(self, row)

    def _evaluate(self) -> dict[str, float]:
        """The metrics of the state, written and judged.

        Raises:
          StopRequested: before it was complete; the next launch makes up for it.
        """
        with self.interlude("eval"):
            result = evaluate_state(self.program, self.state)
        if self.main:
            write_evaluation(self.workdir, self.step, result)
        self.writer.write(self.step, {f"eval/{n}": v for n, v in result.metrics.items()})
        self.writer.write_images(self.step, result.images)
        self.progress.evaluation(self.step, result.metrics)
        check_best_metric(self.config.checkpoint, result.metrics)
        self.evaluations.append({"step": float(self.step), **result.metrics})
        for verdict in self.program.task.guards().evaluation(self.evaluations):
            self.book.require(verdict, EVALUATION)
        return result.metrics

    def _save(self, metrics: Mapping[str, float] | None) -> None:
        self.saved.append(self.step)
        # What was logged up to a checkpoint must outlive a kill as the checkpoint does.
        self.writer.flush()
        self.events.flush()
        source = self.stream.source
        with self.interlude("checkpoint"):
            facts = saved_facts(self.program.task, source)
            if isinstance(self.program.task, Witnessed):
                resident = self.program.resident
                facts["witness"] = self.program.task.witness(self.state, resident)
            self.store.save(
                self.step,
                self.state,
                data_position(source, self.config, self.step),
                config=self.config_json,
                task=facts,
                metrics=metrics,
            )

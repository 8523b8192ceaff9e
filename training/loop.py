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
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import jax

from training import distributed, stop
from training.capabilities import Refreshable
from training.checkpoint.resume import data_position, open_state, saved_facts
from training.checkpoint.store import CheckpointReader, CheckpointStore
from training.errors import DataFault, GuardStop, PodvisionError
from training.evaluation import evaluate_state, read_evaluations, write_evaluation
from training.guards.book import EVALUATION, LOG, START, STEP, GuardBook
from training.guards.start import run_start_guards
from training.guards.watch import restart_scales, watches
from training.guards.watchdog import Watchdog
from training.mesh import Layout, make_mesh
from training.overfit import read_verdict
from training.program import ReadMetrics, called
from training.record import library_log
from training.record.events import EventLog
from training.record.metrics import MetricWriter
from training.record.presentation import presentation_of
from training.record.progress import Meter, Progress
from training.record.recorder import Evidence, Recorder
from training.record.report import write_report
from training.record.run_folder import (
    DONE,
    PREEMPTED,
    held_run_folder,
    ledger_table,
    mark,
    read_ledger,
    resolved_config,
    write_config,
    write_table,
)
from training.resize import grow, settled
from training.schedules import longest_warmup
from training.step import replay_reasons
from training.storage import PathLike
from training.stream import Chunk, ExampleStream, prefetched
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
        outcome, reason = "stopped", "the program ended with an unexpected error"
        try:
            outcome = run.train()
            reason = "all updates made" if outcome == "done" else "asked to stop; all is saved"
        except PodvisionError as error:
            reason = str(error)
            if isinstance(error, DataFault):
                run.book.record(Verdict("data-replaced", False, reason), STEP)
            raise
        finally:
            run.close(outcome, reason)
    return outcome


class Run:
    """The parts of one launch. `train` is the loop; the other methods are its steps."""

    def __init__(
        self,
        task: Task,
        workdir: PathLike,
        layout: Layout,
        overrides: Sequence[str],
        allow_config_change: Sequence[str],
    ):
        """Opens everything; a refusal comes before anything is written to the work folder."""
        config, main = task.config, distributed.is_main()
        self.config, self.workdir, self.layout, self.main = config, workdir, layout, main
        started = time.time()
        self.config_json = resolved_config(config)
        distributed.assert_same("the resolved config", self.config_json)
        guards = task.guards()
        self.book = GuardBook(config.guards, guards.names)
        said: list[str] = []
        reader = CheckpointReader(workdir, config.checkpoint)
        self.program, self.state, self.resumed = open_state(
            task, layout, reader, self.config_json, allow_config_change, said.append
        )
        self.plan, self.step = self.program.plan, int(self.state.step)
        self.stream = ExampleStream(
            task.sources().train,
            config.seed,
            config.batch_size,
            layout.rows(config.batch_size),
            config.loader,
        )
        self.store = CheckpointStore(workdir, config.checkpoint, self.resumed)
        self.events = EventLog(workdir, main, started=started)
        if main:
            write_config(workdir, config, list(overrides), self.plan.total)
        library_log.keep(workdir, jax.process_index())
        self.writer = MetricWriter(
            workdir, config.log, config.name or config.system, self.config_json, main, self.resumed
        )
        self.meter = Meter(
            config.batch_size,
            task.describe().flops_per_example,
            layout.mesh.devices.flat[0].device_kind,
            layout.mesh.devices.size,
        )
        lines = presentation_of(config.system).progress_lines
        self.progress = Progress(self.plan.total, self.step, main, lines=lines)
        for sentence in said:
            self.progress.say(sentence)
        self.recorder = Recorder(
            workdir,
            config.guards.recorder_batches,
            held_batches=2 * self.plan.updates_per_call,
            process=jax.process_index(),
            process_count=jax.process_count(),
        )
        warmup = longest_warmup(config.optimizer, self.plan.total)
        self.watches = watches(config.guards, task.loss_terms, guards, warmup)
        self.watchdog = Watchdog(
            workdir,
            config.guards.hang_seconds,
            config.guards.hang_factor,
            jax.process_index(),
            on_hang=self._on_hang,
        )
        self.evaluations = read_evaluations(workdir, self.step)
        self.ledger = read_ledger(workdir, self.step)
        self.saved: deque[int] = deque(maxlen=2)  # steps whose saves were begun last
        # The call that is still running on the device; its metrics are looked at one call later.
        self.pending: tuple[Chunk, ReadMetrics] | None = None
        self.events.launch(self.step)

    def train(self) -> str:
        """Trains until all is made, or any host is to stop. Returns "done" or "preempted"."""
        self._mark(None)
        try:
            if self.step < self.plan.total:
                distributed.raise_if_stopping()
                self._check_before_start()
            else:
                self.progress.say(f"all {self.plan.total} updates were made before")
            self._catch_up()
        except stop.StopRequested:
            return self._preempted()
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
                self._drain()
            self._evaluate_and_save()

    def close(self, outcome: str, reason: str) -> None:
        """Ends every part and writes the report; `outcome` is done, preempted or stopped."""
        self.stream.close()
        self.progress.close()
        self.events.stop(self.step, outcome, reason)
        self.events.close()
        self.writer.close()
        if self.main:
            self.book.write(self.workdir)
            write_report(self.workdir)
        if outcome != "stopped":
            self.store.close()

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

    def _check_before_start(self) -> None:
        with self.events.measure("init", self.step):
            run_start_guards(self.book, self.program, self.stream, self.state, self.step)
        for watch in self.watches:
            self.book.declare(watch.name, STEP, watch.promise)
        self.book.declare("hang", STEP, f"no step took {self.watchdog.limit:.0f} s or longer")
        allowed = self.config.loader.max_replaced_fraction
        kept = f"less than {allowed:.1%} of the examples had to be replaced"
        self.book.declare("data-replaced", STEP, kept)
        tested = read_verdict(self.workdir)
        if tested is None:
            self.book.declare("overfit", START, "no verdict of podvision overfit is in this folder")
        else:
            self.book.record(tested, START)
        for name in self.config.guards.off:
            self.book.declare(name, "off", "switched off by config.guards.off")
        if self.resumed is not None:
            fits = f"the checkpoint of step {self.step} fits the model leaf by leaf"
            self.book.record(Verdict("checkpoint-diff", True, fits), START)
        if self.main:
            self.book.write(self.workdir)
            for name, table in self.program.tables().items():
                write_table(self.workdir, name, table)

    def _chunks(self):
        return prefetched(self.stream, self.plan.calls(self.step), self.layout)

    def _make(self, chunk: Chunk) -> None:
        """Starts the updates of a call, then looks at the metrics of the call before."""
        for i, batch in enumerate(chunk.host):
            step = chunk.first_step + i + 1
            self.recorder.remember(step, batch["position"], batch["index"], batch)
        # After a refresh the state is neither that of a checkpoint of this step nor of the next.
        read = self.dispatch(chunk, may_stop=not self.plan.refreshes(chunk.first_step))
        self.step = chunk.first_step + chunk.updates
        self._drain()
        self.pending = (chunk, read)
        if replay_reasons(self.program.task):
            # What was held back must be made before the next call may run.
            self.pending = None
            for part in settled(self, chunk, read()):
                self._consume(*part)

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
        self.state, read = self.program.step(self.state, chunk.device, variant)
        return read

    @contextlib.contextmanager
    def interlude(self, event: str):
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
        self.meter.step(chunk.updates)
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
        evidence = self._evidence(step, row) if self.recorder.records_next else Evidence()
        folder = self.recorder.trip(step, finding.name, finding.sentence, evidence)
        recorded = f"; recorded in {folder}" if folder else ""
        self.progress.say(f"{finding.name}: {finding.sentence}{recorded}")
        if self.book.record(finding, STEP):
            self._log(step, row)
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

    def _on_hang(self, sentence: str) -> None:
        """Called by the watchdog's thread: a hang is said and noted, it does not stop the run."""
        self.progress.say(sentence)
        self.book.record(Verdict("hang", False, sentence, warning=True), STEP)

    def _boundary(self, step: int) -> bool:
        return self.plan.evaluates(step) or self.plan.saves(step) or self.plan.refreshes(step)

    def _evaluate_and_save(self) -> None:
        """What is due after this step."""
        metrics = self._evaluate() if self.plan.evaluates(self.step) else None
        if self.plan.saves(self.step):
            self._save(metrics)

    def _refresh(self, chunk: Chunk) -> None:
        """Rewrites the state before the updates of a call."""
        task = self.program.task
        batch = {name: array[0] for name, array in chunk.device.items()}
        self.state, row = self.program.refresh(self.state, batch)
        if isinstance(task, Refreshable) and task.refresh_changes_loss:
            restart_scales(self.watches)
        self.ledger.append({"step": float(self.step), **row})
        self.writer.write(self.step, row)
        if self.main:
            write_table(self.workdir, "ledger", ledger_table(self.ledger))
        for verdict in task.guards().refresh(self.ledger):
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
            self.store.save(
                self.step,
                self.state,
                data_position(source, self.config, self.step),
                config=self.config_json,
                task=saved_facts(self.program.task, source),
                metrics=metrics,
            )

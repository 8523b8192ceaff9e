"""The train loop: `fit` trains or resumes a task in a work folder. Read this file top-down.

One pass: take the next batches, refresh the state if it is due, dispatch the step, look at the
metrics of the call before (the device stays busy meanwhile), evaluate and save where the plan says
so, and stop if any host was asked to. A refresh of step N comes before the update that follows it:
a checkpoint of step N holds the state before, and a resumed run makes the refresh first. Decisions
depend on the step and on replicated numbers only, so that every process takes them alike.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import jax
from etils import epath

from training import distributed
from training.checkpoint.resume import data_position, open_state
from training.checkpoint.store import CheckpointStore
from training.config import TrainConfig
from training.errors import DataFault, GuardStop, PodvisionError
from training.evaluation import evaluate_state, read_evaluations, write_evaluation
from training.guards.book import EVALUATION, LOG, START, STEP, GuardBook, run_start_guards
from training.guards.watch import Incident, restart_scales, watches
from training.guards.watchdog import Watchdog
from training.mesh import Layout, make_mesh
from training.overfit import read_verdict
from training.plan import make_plan
from training.record.events import EventLog
from training.record.metrics import MetricWriter
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
from training.schedules import longest_warmup
from training.storage import PathLike
from training.stream import Chunk, ExampleStream, prefetched
from training.task import Batch, Task, Verdict

ReadMetrics = Callable[[], list[dict[str, float]]]
MAX_RESIZES = 8  # for one batch


def fit(
    task: Task,
    config: TrainConfig,
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
    layout = Layout(make_mesh(config.mesh))
    with held_run_folder(workdir, distributed.is_main()), jax.set_mesh(layout.mesh):
        run = Run(task, config, workdir, layout, overrides, allow_config_change)
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
        config: TrainConfig,
        workdir: PathLike,
        layout: Layout,
        overrides: Sequence[str],
        allow_config_change: Sequence[str],
    ):
        main = distributed.is_main()
        self.config, self.workdir, self.layout, self.main = config, workdir, layout, main
        self.events = EventLog(workdir, main)
        source = task.sources().train
        self.plan = make_plan(config, len(source), task.refresh_cadence, task.logged_first)
        self.config_json = resolved_config(config)
        distributed.assert_same("the resolved config", self.config_json)
        self.book = GuardBook(config.guards)
        self.store = CheckpointStore(workdir, config.checkpoint, self.plan.save_every)
        self.program, self.state = open_state(
            task, config, self.config_json, layout, self.plan.total, self.store, allow_config_change
        )
        if main:  # After the checks: a refused command leaves the folder as it was.
            write_config(workdir, config, list(overrides), self.plan.total)
        self.step = int(self.state.step)
        self.stream = ExampleStream(
            source, config.seed, config.batch_size, layout.rows(config.batch_size), config.loader
        )
        resumed = self.step if self.store.latest() is not None else None
        self.writer = MetricWriter(
            workdir, config.log, config.name or config.system, self.config_json, main, resumed
        )
        device = jax.devices()[0]
        self.meter = Meter(
            config.batch_size,
            task.describe().flops_per_example,
            device.device_kind,
            jax.device_count(),
        )
        self.progress = Progress(self.plan.total, self.step, main)
        self.recorder = Recorder(
            workdir,
            config.guards.recorder_batches,
            held_batches=2 * self.plan.updates_per_call,
            process=jax.process_index(),
            process_count=jax.process_count(),
        )
        self.watches = watches(
            config.guards, task, longest_warmup(config.optimizer, self.plan.total)
        )
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
        self.events.launch(self.step)

    def train(self) -> str:
        """The loop. Returns "done" or "preempted"."""
        self._mark(None)
        if self.step >= self.plan.total:
            self.progress.say(f"all {self.plan.total} updates were made before; nothing to do")
            self._mark(DONE)
            return "done"
        self._check_before_start()
        if self.config.evaluation.at_start and self.step == 0:
            self._evaluate()
        pending: tuple[Chunk, ReadMetrics] | None = None
        with self.watchdog, contextlib.closing(self._chunks()) as chunks:
            while True:
                with self.meter.waiting():
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                if self.plan.refreshes(chunk.first_step):
                    self._refresh()
                self._remember(chunk)
                read = self._dispatch(chunk.device)
                self.step = chunk.first_step + chunk.updates
                if pending is not None:
                    self._consume(*pending)
                pending = (chunk, read)
                if self.program.task.replay_reasons:
                    self._settle(*pending)
                    pending = None
                if self._boundary(self.step) and pending is not None:
                    self._consume(*pending)
                    pending = None
                stop = distributed.reached_preemption(self.step)
                if stop and pending is not None:
                    self._consume(*pending)
                    pending = None
                self._evaluate_and_save(stop)
                if stop and self.step < self.plan.total:
                    self.store.wait()
                    self._mark(PREEMPTED)
                    self.progress.say(f"asked to stop: step {self.step} is saved")
                    return "preempted"
        self.store.wait()
        self._mark(DONE)
        return "done"

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
        known = "every config key is known and has the right type"
        self.book.record(Verdict("unread-config", True, known), START)
        if self.store.latest() is not None:
            fits = f"the checkpoint of step {self.step} fits the model leaf by leaf"
            self.book.record(Verdict("checkpoint-diff", True, fits), START)
        if self.main:
            self.book.write(self.workdir)
            for name, table in self.program.tables().items():
                write_table(self.workdir, name, table)

    def _chunks(self):
        return prefetched(self.stream, self.plan.calls(self.step), self.layout)

    def _remember(self, chunk: Chunk) -> None:
        for i, batch in enumerate(chunk.host):
            self.recorder.remember(
                chunk.first_step + i + 1, batch["position"], batch["index"], batch
            )

    def _dispatch(self, batches: Batch) -> ReadMetrics:
        updates = next(iter(batches.values())).shape[0]
        if self.program.is_compiled(updates):
            self.state, read = self.program.step(self.state, batches)
            return read
        with self._interlude("compile"):
            self.state, read = self.program.step(self.state, batches)
        return read

    @contextlib.contextmanager
    def _interlude(self, event: str):
        """Time that is not a step's: compilation, evaluation, a save."""
        with self.events.measure(event, self.step), self.meter.pause(), self.watchdog.paused():
            yield

    def _settle(self, chunk: Chunk, read: ReadMetrics) -> None:
        """Consumes a call at once; grows the capacity and replays what was held back."""
        rows = read()
        held = next((i for i, row in enumerate(rows) if row["replay"] > 0), len(rows))
        self._consume(chunk, lambda: rows[:held])
        for i in range(held, chunk.updates):
            part = jax.tree.map(lambda x, i=i: x[i : i + 1], chunk.device)
            row = rows[held] if i == held else None
            for _ in range(MAX_RESIZES):
                if row is not None:
                    self._resize(row)
                (row,) = self._dispatch(part)()
                if row["replay"] == 0:
                    break
            else:
                sentence = f"the capacity had to grow {MAX_RESIZES} times in a row"
                raise GuardStop("overflow", sentence)
            replayed = Chunk(chunk.first_step + i, chunk.host[i : i + 1], part)
            self._consume(replayed, lambda row=row: [row])

    def _resize(self, row: Mapping[str, float]) -> None:
        reasons = [
            reason for reason in self.program.task.replay_reasons if row[f"suppressed/{reason}"] > 0
        ]
        self._grow(", ".join(reasons))

    def _grow(self, reason: str) -> None:
        with self._interlude("compile"):
            self.program, self.state = self.program.resized(self.state, reason)
        step = int(self.state.step)  # self.step may be ahead, at the end of the call
        self.progress.say(f"step {step}: capacity grown ({reason})")
        self.writer.write(step, {"train/resized": 1.0})

    def _consume(self, chunk: Chunk, read: ReadMetrics) -> None:
        """Looks at the metrics of a call: guards, log, progress."""
        rows = read()
        self.meter.step(chunk.updates)
        for i, row in enumerate(rows):
            step = chunk.first_step + i + 1
            for watch in self.watches:
                incident = watch.check(step, row)
                if incident is not None:
                    self._on_incident(incident, step, row)
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

    def _on_incident(self, incident: Incident, step: int, row: Mapping[str, float]) -> None:
        evidence = self._evidence(step, row) if self.recorder.records_next else Evidence()
        folder = self.recorder.trip(step, incident.guard, incident.sentence, evidence)
        recorded = f"; recorded in {folder}" if folder else ""
        self.progress.say(f"{incident.guard}: {incident.sentence}{recorded}")
        verdict = Verdict(incident.guard, False, incident.sentence, warning=not incident.fatal)
        if self.book.record(verdict, STEP):
            self._log(step, row)
            raise GuardStop(incident.guard, incident.sentence)

    def _evidence(self, step: int, row: Mapping[str, float]) -> Evidence:
        return Evidence(
            losses={n: v for n, v in row.items() if n.split("/")[0] == "loss"},
            gradient_norms={n: v for n, v in row.items() if n.startswith("grad_norm")},
            key_data=jax.device_get(jax.random.key_data(self.state.key)),
            key_impl=str(jax.random.key_impl(self.state.key)),
            checkpoint=self._checkpoint_before(step),
        )

    def _on_hang(self, sentence: str) -> None:
        """Called by the watchdog's thread: a hang is said and noted, it does not stop the run."""
        self.progress.say(sentence)
        self.book.record(Verdict("hang", False, sentence, warning=True), STEP)

    def _checkpoint_before(self, step: int) -> epath.Path | None:
        """Of the checkpoints, those that are still being written included."""
        earlier = [saved for saved in (*self.store.steps(), *self.saved) if saved < step]
        return self.store.folder.step_path(max(earlier)) if earlier else None

    def _boundary(self, step: int) -> bool:
        return self.plan.evaluates(step) or self.plan.saves(step) or self.plan.refreshes(step)

    def _evaluate_and_save(self, stop: bool) -> None:
        metrics = None
        if self.plan.evaluates(self.step):
            metrics = self._evaluate()
        if stop or self.plan.saves(self.step):
            self._save(metrics)

    def _refresh(self) -> None:
        self.state, row = self.program.refresh(self.state)
        restart_scales(self.watches)
        self.ledger.append({"step": float(self.step), **row})
        self.writer.write(self.step, row)
        if self.main:
            write_table(self.workdir, "ledger", ledger_table(self.ledger))
        for verdict in self.program.task.refresh_guards(self.ledger):
            self.book.require(verdict, LOG)
        reason = self.program.task.resize_reason(row)
        if reason is not None:
            self._grow(reason)

    def _evaluate(self) -> dict[str, float]:
        with self._interlude("eval"):
            result = evaluate_state(self.program, self.state)
        if self.main:
            write_evaluation(self.workdir, self.step, result.metrics)
        self.writer.write(self.step, {f"eval/{n}": v for n, v in result.metrics.items()})
        self.writer.write_images(self.step, result.images)
        self.progress.evaluation(self.step, result.metrics)
        self.evaluations.append({"step": float(self.step), **result.metrics})
        for verdict in self.program.task.evaluation_guards(self.evaluations):
            self.book.require(verdict, EVALUATION)
        return result.metrics

    def _save(self, metrics: Mapping[str, float] | None) -> None:
        self.saved.append(self.step)
        # What was logged up to a checkpoint must outlive a kill as the checkpoint does.
        self.writer.flush()
        self.events.flush()
        with self._interlude("checkpoint"):
            self.store.save(
                self.step,
                self.state,
                data_position(self.stream.source, self.config, self.step),
                config=self.config_json,
                task=self.program.task.metadata(),
                metrics=metrics,
            )

"""Everything of one launch of a run, opened in an order that leaves nothing behind when refused."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import jax

from training import distributed
from training.checkpoint.resume import open_state
from training.checkpoint.store import CheckpointReader, CheckpointStore
from training.evaluation import read_evaluations
from training.guards.book import START, STEP, GuardBook
from training.guards.start import run_start_guards
from training.guards.watch import watches
from training.guards.watchdog import Watchdog
from training.mesh import Layout
from training.overfit import read_verdict
from training.record import library_log
from training.record.alerts import Alerts
from training.record.events import EventLog
from training.record.metrics import MetricWriter
from training.record.presentation import presentation_of
from training.record.profile import Profiler
from training.record.progress import Meter, Progress
from training.record.recorder import Recorder
from training.record.report import write_report
from training.record.run_folder import read_ledger, resolved_config, write_config, write_table
from training.resize import Window
from training.schedules import longest_warmup
from training.storage import PathLike
from training.stream import ExampleStream
from training.task import Task
from training.verdict import Verdict


class OpenRun:
    """The parts of one launch.

    Attributes:
      program, state: as of `step`; a resize replaces both.
      resumed: step of the checkpoint that was restored, or None.
      config_json: the resolved config.
      evaluations, ledger: rows of this run so far, of earlier launches included.
      window: what the last updates needed of the room for them.
      saved: steps whose saves were begun last.
    """

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
        # Before all that takes long, which counts as initialization.
        started = time.time()
        run_name = config.name or config.system
        self.alerts = Alerts(run_name, str(workdir), main)
        self.config_json = resolved_config(config)
        distributed.assert_same("the resolved config", self.config_json)
        guards = task.guards()
        self.book = GuardBook(config.guards, guards.names)
        said: list[str] = []  # until there is a progress display to say it
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
            workdir, config.log, run_name, self.config_json, main, self.resumed
        )
        self.meter = Meter(
            config.batch_size,
            task.describe().flops_per_example,
            layout.mesh.devices.flat[0].device_kind,
            layout.mesh.devices.size,
        )
        shown = presentation_of(config.system)
        self.progress = Progress(
            self.plan.total,
            self.step,
            main,
            lines=shown.progress_lines,
            headline=shown.headline,
        )
        for sentence in said:
            self.progress.say(sentence)
        self.profiler = Profiler(workdir, main, self.progress.say)
        self.recorder = Recorder(
            workdir,
            config.guards.recorder_batches,
            # Metrics are read one call late: this one's batches, and those of the call before.
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
            exit_seconds=config.guards.hang_exit_seconds,
        )
        self.evaluations = read_evaluations(workdir, self.step)
        self.ledger = read_ledger(workdir, self.step)
        self.window = Window()
        self.saved: deque[int] = deque(maxlen=2)  # steps whose saves were begun last
        self.events.launch(self.step)

    def close(self, outcome: str, reason: str) -> None:
        """Ends every part and writes the report; `outcome` is done, preempted or stopped."""
        self.stream.close()
        self.profiler.close(self.step)
        self.progress.close()
        self.events.stop(self.step, outcome, reason)
        self.events.close()
        if outcome == "stopped":  # W&B tells by itself of a run that is done
            self.writer.alert(f"stopped at step {self.step:,}", reason)
        self.writer.close()
        if self.main:
            # Now, because the report reads the files that are closed above.
            self.book.write(self.workdir)
            write_report(self.workdir)
        # Before the store, which may wait long, and after the report, to which it leads.
        self.alerts.send(outcome, self.step, reason)
        if outcome != "stopped":
            self.store.close()

    def check_before_start(self) -> None:
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

    def _on_hang(self, sentence: str) -> None:
        """Called by the watchdog's thread: a hang is said and noted, it does not stop the run."""
        self.progress.say(sentence)
        self.book.record(Verdict("hang", False, sentence, warning=True), STEP)
        self.alerts.send("hang", self.step, sentence)

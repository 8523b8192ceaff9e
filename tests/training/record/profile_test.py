"""Traces on demand: asked for by a file, written for xprof, and never a reason to stop."""

from __future__ import annotations

import dataclasses
import gzip
import json

import pytest

from launch import cli
from tests.training.toy import CONFIG, ToyTask
from training import storage
from training.config import Duration, LogConfig
from training.loop import fit
from training.record import profile
from training.record.metrics import read_metrics
from training.record.profile import REQUEST, Profiler


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Work folder of a run that was asked for two updates, and what it said."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / REQUEST).write_text("2")
    log = LogConfig(every=1)
    config = dataclasses.replace(CONFIG, total=Duration(updates=6), log=log, updates_per_call=1)
    fit(ToyTask(config), folder)
    return folder


@pytest.mark.usefixtures("quick_compilation")
def test_a_run_traces_the_updates_that_were_asked_for(traced):
    assert not (traced / REQUEST).exists()
    # The first call compiles, so that the trace begins after it.
    (made,) = (traced / "profile").iterdir()
    assert made.name == "1"
    names = [path.name for path in made.rglob("*") if path.is_file()]
    assert any(name.endswith(".xplane.pb") for name in names)
    (events,) = made.rglob("*.trace.json.gz")
    rows = json.loads(gzip.decompress(events.read_bytes()))["traceEvents"]
    steps = {row["args"]["step_num"] for row in rows if "step_num" in row.get("args", {})}
    assert steps == {"1", "2"}


def test_the_updates_are_those_of_a_run_without_a_trace(traced, tmp_path):
    config = dataclasses.replace(
        CONFIG, total=Duration(updates=6), log=LogConfig(every=1), updates_per_call=1
    )
    fit(ToyTask(config), tmp_path)

    def losses(folder):
        return [row["train/loss"] for row in read_metrics(folder) if "train/loss" in row]

    assert losses(traced) == losses(tmp_path)
    assert len(losses(traced)) == 6


class Traces:
    """Stands in for the profiler of jax."""

    def __init__(self, monkeypatch):
        self.running, self.now, self.said = None, 0.0, []
        monkeypatch.setattr(profile.jax.profiler, "start_trace", self.start)
        monkeypatch.setattr(profile.jax.profiler, "stop_trace", self.stop)

    def start(self, folder, profiler_options):
        if self.running:
            raise RuntimeError("Profile has already been started.")
        self.running = folder

    def stop(self):
        storage.replace_text(f"{self.running}/x.xplane.pb", "trace")
        self.running = None

    def profiler(self, workdir, main=True):
        return Profiler(workdir, main, self.said.append, clock=lambda: self.now)


@pytest.fixture
def traces(monkeypatch):
    return Traces(monkeypatch)


def settle():
    pass


@pytest.mark.parametrize("text, updates", [("3\n", 3), ("", profile.UPDATES)])
def test_it_ends_after_so_many_updates(traces, tmp_path, text, updates):
    (tmp_path / REQUEST).write_text(text)
    profiler = traces.profiler(tmp_path)
    profiler.between(40, settle)
    profiler.between(40 + updates - 1, settle)
    assert traces.running and not traces.said
    profiler.between(40 + updates, settle)
    assert (tmp_path / "profile" / "40" / "x.xplane.pb").read_text() == "trace"
    assert not traces.running and f"traced {updates} updates after step 40" in traces.said[0]


def test_a_run_that_ends_first_leaves_what_there_is(traces, tmp_path):
    (tmp_path / REQUEST).write_text("100")
    profiler = traces.profiler(tmp_path)
    profiler.between(7, settle)
    profiler.close(9)
    profiler.close(9)
    assert "traced 2 updates after step 7" in traces.said[0]
    assert (tmp_path / "profile" / "7" / "x.xplane.pb").exists()


def test_it_looks_every_few_seconds_only(traces, tmp_path):
    profiler = traces.profiler(tmp_path)
    profiler.between(1, settle)
    (tmp_path / REQUEST).write_text("3")
    traces.now = profile.LOOK_SECONDS - 0.1
    profiler.between(2, settle)
    assert not traces.running
    traces.now = profile.LOOK_SECONDS
    profiler.between(3, settle)
    assert traces.running


@pytest.mark.parametrize("text", ["0", "-1", "ten", "100000", "1.5"])
def test_a_request_that_makes_no_sense_is_said_once_and_taken_away(traces, tmp_path, text):
    (tmp_path / REQUEST).write_text(text)
    profiler = traces.profiler(tmp_path)
    profiler.between(1, settle)
    traces.now = 100.0
    profiler.between(2, settle)
    assert len(traces.said) == 1 and repr(text) in traces.said[0]
    assert not traces.running and not (tmp_path / REQUEST).exists()


def test_other_processes_leave_the_request_alone(traces, tmp_path):
    (tmp_path / REQUEST).write_text("3")
    traces.profiler(tmp_path, main=False).between(1, settle)
    assert not traces.running and (tmp_path / REQUEST).exists()


def test_a_trace_of_somebody_else_is_said(traces, tmp_path):
    (tmp_path / REQUEST).write_text("3")
    traces.running = "another"
    profiler = traces.profiler(tmp_path)
    profiler.between(1, settle)
    profiler.close(2)
    assert "already been started" in traces.said[0] and traces.running == "another"


def test_the_command_leaves_the_request(place, capsys):
    storage.replace_text(place / "config.json", "{}")
    assert cli.main(["profile", "--workdir", str(place), "--updates", "4"]) == 0
    assert storage.read_text(place / REQUEST) == "4\n"
    assert REQUEST in capsys.readouterr().out


@pytest.mark.parametrize("updates", ["0", "5000"])
def test_the_command_refuses_what_no_run_would_do(tmp_path, capsys, updates):
    (tmp_path / "config.json").write_text("{}")
    assert cli.main(["profile", "--workdir", str(tmp_path), "--updates", updates]) == 2
    assert "--updates" in capsys.readouterr().err


def test_the_command_refuses_a_folder_without_a_run(tmp_path, capsys):
    assert cli.main(["profile", "--workdir", str(tmp_path)]) == 2
    assert "no config.json" in capsys.readouterr().err
    assert not (tmp_path / REQUEST).exists()

"""The report shows what the folder holds, says what it lacks, and trusts nothing in it."""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from launch import report as command
from training.config import LogConfig
from training.errors import InputError
from training.record.events import EventLog
from training.record.metrics import MetricWriter
from training.record.recorder import Evidence, Recorder
from training.record.report import write_report
from training.record.report.curves import constants, sections, skipped_steps
from training.record.report.read import read_run

VOID = {"meta", "img", "br", "path", "circle"}
HOSTILE = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Checks that tags nest; collects text, attributes that load something, and figures."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.text, self.loads, self.attributes = [], [], [], []
        self.feed(source)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", "".join(self.text))


def make_folder(folder, *, name="tiny run", steps=30, state="done", reason="All updates were made"):
    """A small but complete work folder, as the loop would leave it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "system": "splats",
        "name": name,
        "total": {"updates": steps},
        "optimizer": {"clip_norm": 0.5},
        "checkpoint": {"best_metric": "psnr", "best_mode": "max"},
    }
    facts = {"config": config, "overrides": {"seed": 3}, "versions": {"jax": "0.1"}}
    (folder / "config.json").write_text(json.dumps({**facts, "revision": "abc123"}))
    log = EventLog(folder, clock=iter(np.arange(100.0, 10_000.0)).__next__)
    log.launch(0)
    writer = MetricWriter(folder, LogConfig(), name, config, main=True)
    for step in range(1, steps + 1):
        row = {"train/loss": 1 / step, "train/grad_norm": 0.1 * step, "train/fixed": 7.0}
        row |= {
            "train/skipped": float(step >= 12) + float(step >= 20),
            "train/psnr": 20 + step / 10,
        }
        writer.write(step, row)
        if step % 10 == 0:
            writer.write(step, {"eval/psnr": {10: 21.0, 20: 24.5, 30: 23.0}[step]})
            pixels = np.full((8, 8, 3), step, np.uint8)
            writer.write_images(step, {"view": pixels})
            log.train(step, 10, 0.5, 0.1)
    writer.close()
    log.stop(steps, state, reason)
    log.close()
    if state == "done":
        (folder / "DONE").touch()
    guards = [
        {"name": "schedule", "passed": True, "sentence": "Fine.", "when": "start", "checked": 1},
        {"name": "loss-spike", "passed": False, "sentence": "A spike.", "when": 20, "checked": 9},
        {"name": "overfit", "passed": None, "sentence": "Run it.", "when": None, "checked": 0},
    ]
    (folder / "guards.json").write_text(json.dumps(guards))
    (folder / "tables").mkdir(exist_ok=True)
    table = {"title": "Parts", "columns": ["Part", "Count"], "rows": [["encoder", 1234567]]}
    (folder / "tables" / "parts.json").write_text(json.dumps(table))
    Recorder(folder, 2).trip(20, "loss-spike", "A spike.", Evidence())
    return folder


def page_of(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_loads_nothing_from_outside(tmp_path):
    page = page_of(make_folder(tmp_path / "run"))
    assert page.loads and all(value.startswith("data:image/") for value in page.loads)
    source = (tmp_path / "run" / "report.html").read_text()
    assert "http" not in source and "@import" not in source and "url(" not in source


def test_key_facts_are_on_the_page(tmp_path):
    words = page_of(make_folder(tmp_path / "run")).words
    for fact in (
        "tiny run done",
        "30 of 30 steps",
        "All updates were made.",
        "Of 2 guards that ran 1 failed, 1 never ran.",
        "Best psnr24.50at step 20",
        "Last psnr23.00at step 30",
        "Loss0.03333from 1.000",
        "Skipped updates2",
        "Never ran. Run it.",
        "loss-spike A spike. step 20 · docs/failures.md#loss-spike",
        "encoder1,234,567",
        "podvision replay --workdir run --step 20",
        "seed = 3",
        "abc123",
        "train/fixed = 7.000",
    ):
        assert fact in words, fact


def test_equal_folders_give_equal_bytes(tmp_path):
    first, second = (make_folder(tmp_path / place / "run") for place in ("a", "b"))
    assert write_report(first).read_bytes() == write_report(second).read_bytes()
    assert write_report(first).read_bytes() == write_report(second).read_bytes()


def test_everything_from_the_folder_is_escaped(tmp_path):
    folder = make_folder(tmp_path / "run", name=HOSTILE, reason=HOSTILE)
    guards = [{"name": HOSTILE, "passed": False, "sentence": HOSTILE, "when": HOSTILE}]
    (folder / "guards.json").write_text(json.dumps(guards))
    table = {"title": HOSTILE, "columns": [HOSTILE], "rows": [[HOSTILE]]}
    (folder / "tables" / "parts.json").write_text(json.dumps(table))
    facts = json.loads((folder / "config.json").read_text())
    facts |= {"overrides": [HOSTILE], "versions": {HOSTILE: HOSTILE}, "revision": HOSTILE}
    (folder / "config.json").write_text(json.dumps(facts))
    with (folder / "metrics.jsonl").open("a") as file:
        for step in (31, 32):
            row = {"step": step, HOSTILE: step, f"eval/{HOSTILE}": step, f"train/loss/{HOSTILE}": 1}
            file.write(json.dumps(row) + "\n")
    record = folder / "recorder" / "20" / "record.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "guard": HOSTILE, "reason": HOSTILE}))
    source = write_report(folder).read_text()
    assert source.count("<script>") == 1 and "alert('x')</script>" not in source
    assert Page(source).words.count(HOSTILE) >= 8


def test_an_empty_folder_gives_a_page_that_says_what_is_missing(tmp_path):
    words = page_of(tmp_path).words
    for sentence in (
        "No metrics have been logged yet.",
        "No guards.json was written",
        "No evaluation has been logged.",
        "No pictures were written.",
        "No events were logged",
        "No config.json was written.",
        "No end was recorded: it is running, or it was killed.",
    ):
        assert sentence in words, sentence


def test_broken_files_are_named_and_do_not_stop_the_report(tmp_path):
    folder = make_folder(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('rubbish\n{"loss": 1}\n{"step": 31, "train/lo')
    (folder / "guards.json").write_text("[{")
    (folder / "tables" / "ragged.json").write_text('{"title": "x", "columns": [1], "rows": [[]]}')
    (folder / "artifacts" / "30" / "view.png").write_bytes(b"no picture")
    (folder / "recorder" / "20" / "record.json").write_text("[]")
    words = page_of(folder).words
    for sentence in (
        "metrics.jsonl line 34 is not a JSON object",
        "metrics.jsonl lines without a step: 1",
        "guards.json is not valid JSON",
        "tables/ragged.json lacks title, columns or rows of that width",
        "artifacts/30/view.png is not a readable picture",
        "record.json does not hold a JSON dict",
    ):
        assert sentence in words, sentence
    assert "30 of 30 steps" in words


@pytest.mark.parametrize(
    ("markers", "stop", "state"),
    [
        (["DONE"], ("done", "x"), "done"),
        (["PREEMPTED"], None, "preempted"),
        ([], ("stopped", "x"), "stopped"),
        ([], ("preempted", "x"), "preempted"),
        ([], None, "running"),
    ],
)
def test_the_state_follows_markers_and_events(tmp_path, markers, stop, state):
    for marker in markers:
        (tmp_path / marker).touch()
    log = EventLog(tmp_path)
    log.launch(0)
    if stop:
        log.stop(5, *stop)
    assert read_run(tmp_path).ending.state == state


def test_a_later_launch_overrules_an_earlier_stop(tmp_path):
    log = EventLog(tmp_path)
    log.launch(0)
    log.stop(5, "stopped", "spike")
    log.launch(3)
    assert read_run(tmp_path).ending.state == "running"


def test_a_guard_stop_names_the_guard_and_tells_its_sentence_once(tmp_path):
    reason = "A spike. [guard loss-spike; see docs/failures.md#loss-spike]"
    words = page_of(make_folder(tmp_path / "run", state="stopped", reason=reason)).words
    assert "The guard loss-spike stopped it." in words
    assert words.count("A spike.") == 3, "the box, the folded table and the recording"


def test_a_warning_is_no_failure_and_a_promise_is_no_finding(tmp_path):
    guards = [
        {"name": "nonfinite", "passed": False, "warning": True, "sentence": "one", "checked": 3},
        {"name": "share-cap", "passed": True, "sentence": "no term above its cap", "checked": 0},
    ]
    (tmp_path / "guards.json").write_text(json.dumps(guards))
    words = page_of(tmp_path).words
    assert "Of 1 guards that ran 1 warned, 1 never ran." in words
    assert "no term above its cap" not in words


def test_train_and_eval_share_a_chart_where_the_metric_has_the_same_name(tmp_path):
    charts = dict(sections(read_run(make_folder(tmp_path / "run"))))
    (psnr,) = charts["Evaluation"]
    assert [line.label for line in psnr.series] == ["train", "eval"]
    assert [line.color for line in psnr.series] == [0, 1]


def test_clip_line_and_skipped_updates_are_on_the_gradient_norm(tmp_path):
    run = read_run(make_folder(tmp_path / "run"))
    (gradient,) = dict(sections(run))["Optimization"]
    assert gradient.levels == ((0.5, "clip at"),)
    assert gradient.marks == skipped_steps(run) == (12.0, 20.0)


def test_every_metric_is_on_a_chart_or_among_the_constants(tmp_path):
    folder = make_folder(tmp_path / "run")
    rows = [
        {"step": step, "train/learning_rate/a": 1.0, "train/learning_rate/b": step, "odd": step}
        for step in (31, 32)
    ]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    run = read_run(folder)
    drawn = [line for _, charts in sections(run) for chart in charts for line in chart.series]
    shown = {
        name
        for name, (_, values) in run.curves.items()
        if any(line.values is values for line in drawn)
    }
    assert shown | constants(run).keys() | {"train/skipped"} == run.curves.keys()
    assert "train/learning_rate/a" in shown, "constant, but beside a rate that moves"


def test_a_curve_equal_to_its_parent_is_not_drawn_twice(tmp_path):
    writer = MetricWriter(tmp_path, LogConfig(), "x", {}, main=True)
    for step in (1, 2):
        writer.write(step, {"train/loss": step, "train/loss/only": step, "train/loss_set/0": step})
    writer.close()
    titles = [chart.title for _, charts in sections(read_run(tmp_path)) for chart in charts]
    assert titles == ["Loss", "Loss set 0"]


def test_the_newest_picture_is_large_and_exact_and_earlier_ones_follow_in_order(tmp_path):
    page = page_of(make_folder(tmp_path / "run"))
    means = []
    for source in page.loads:
        data = base64.b64decode(source.split(",", 1)[1])
        means.append(np.asarray(Image.open(io.BytesIO(data))).mean())
    assert means == [30.0, 10.0, 20.0]


def test_hover_data_holds_the_values_of_the_file(tmp_path):
    page = page_of(make_folder(tmp_path / "run"))
    charts = [json.loads(value) for _, name, value in page.attributes if name == "data-chart"]
    assert charts[0]["series"][1] == {"x": [10, 20, 30], "y": ["21.00", "24.50", "23.00"]}


def test_long_tables_keep_both_ends(tmp_path):
    folder = make_folder(tmp_path / "run")
    table = {"title": "Ledger", "columns": ["Step"], "rows": [[1000 + i] for i in range(500)]}
    (folder / "tables" / "ledger.json").write_text(json.dumps(table))
    words = page_of(folder).words
    assert "The first and last 100 of 500 rows." in words
    assert "1,099" in words and "1,100" not in words and "1,400" in words


def test_the_command_prints_the_path(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    make_folder(tmp_path / "run")
    assert command.run(parser.parse_args(["--workdir", str(tmp_path / "run")])) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "report.html")


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="absent does not exist"):
        write_report(tmp_path / "absent")


def test_a_table_with_pictures_shows_them_in_its_rows_and_nowhere_else(tmp_path):
    folder = make_folder(tmp_path / "run")
    rows = [["a.png", 12.5], ["b.png", 20.0], ["c.png", 30.0]]
    table = {"title": "Views", "columns": ["view", "psnr"], "rows": rows}
    for name, pictures in (("views", ["one", "gone", ""]), ("short", ["one"])):
        content = json.dumps(table | {"pictures": pictures})
        (folder / "tables" / f"{name}.json").write_text(content)
    pixels = np.full((4, 6, 3), 50, np.uint8)
    for step in (10, 20):
        Image.fromarray(pixels).save(folder / "artifacts" / str(step) / "one.png")
    page = page_of(folder)
    source = (folder / "report.html").read_text()
    assert source.count("<h2>Views</h2>") == 1 and "tables/short.json lacks" in page.words
    row = re.search(r"<tr><td[^>]*>a.png</td>.*?</tr>", source)
    assert row is not None and row.group().count("<img") == 1
    # Beside it only "view", with its two earlier steps.
    assert source.count("<img") == 1 + 3


def test_a_run_is_called_after_its_scene_and_its_name_stands_above(tmp_path):
    folder = make_folder(tmp_path / "run", name="my recipe")
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["config"]["scene"] = {"path": "/photographs/garden/"}
    path.write_text(json.dumps(content))
    page = page_of(folder)
    assert "Scene garden done" in page.words and "splats · my recipe" in page.words
    assert "<title>Scene garden</title>" in (folder / "report.html").read_text()

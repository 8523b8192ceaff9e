"""Prepared data sets of tests, and their faults."""

from __future__ import annotations

import json

from etils import epath

from rtdetr.data.preparation import PrepareSettings, prepare, read_source

LENIENT = PrepareSettings(max_bad_fraction=0.9, workers=2)


def prepared(folder, tmp_path, settings=LENIENT, form="auto"):
    """The report, and the prepared folder."""
    output = tmp_path / "prepared"
    said: list[str] = []
    source, splits = read_source(folder, form)
    return prepare(splits, source, epath.Path(output), settings, said.append), output


def edited(folder, change, split="train2017"):
    """The COCO data set after a change of one annotation file."""
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def findings(report, split="train"):
    return {kind: f["count"] for kind, f in report["splits"][split]["findings"].items()}

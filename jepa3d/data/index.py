"""`index.jsonl`: one JSON object per input file, and the journal that makes a run resumable.

During a run finished rows are appended to `journal.jsonl`; at its end the index is rewritten and
the journal removed. A run that was interrupted leaves a journal, which the next run reads; a torn
last line is ignored. Both may lie in a bucket.
"""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from training import line_file, storage
from training.errors import InputError
from training.line_file import LineFile

INDEX_NAME = "index.jsonl"
JOURNAL_NAME = "journal.jsonl"
SETTINGS_NAME = "settings.json"

Row = dict[str, Any]

# Every row has these keys, in this order; what does not apply is null or "".
ROW_DEFAULTS: Row = {
    "path": "",  # relative to the input folder, with "/"
    "status": "skip",  # "ok" or "skip"
    "reason": None,  # of a skip, see `SkipReason`
    "detail": None,  # of a skip, in words
    "scanner": "unknown",
    "participant": "",
    "laterality": "",  # "R", "L" or ""
    "protocol": "",
    "shape": None,  # [frame, row, column] of the source volume
    "spacing_mm": None,  # (pitch, axial, lateral) of the source volume
    "split": None,  # "train", "eval" or "test"
    "shard": None,  # number of the shard in its split
    "position": None,  # of the record in its shard
    "part_of": None,  # path of the row that holds the record of this file's series
    "grid_spacing_mm": None,
    "valid_fraction": None,  # share of the grid that the scan covers
    "foreground_fraction": None,  # share of tokens with retina
    "retina_row": None,  # row of the source volume on which the window is centered
    "mean": None,  # of the covered voxels, 0..1
    "std": None,
    "notes": None,  # what was assumed or repaired while reading
    "sha256": None,  # of the files
    "voxel_hash": None,  # of the decoded volume, see `duplicates`
    "sop_instance_uid": "",
    "duplicate_of": None,  # path of the row that holds the same scan
    "bytes": None,
    "modified_ns": None,
}


def read_rows(path: epath.Path, torn_end: bool = False) -> list[Row]:
    """Reads a JSON-lines file; `torn_end` allows an incomplete last line.

    Raises:
      InputError: a line is not JSON.
    """
    rows = []
    lines = line_file.read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if torn_end and number == len(lines):
                break
            raise InputError(
                f"{path} line {number} is not JSON ({error.msg}); delete the folder and prepare "
                "again"
            ) from error
    return rows


def load_known(folder: epath.Path) -> dict[str, Row]:
    """Rows of the index and of an interrupted run's journal by path, the later one counting."""
    rows = read_rows(folder / INDEX_NAME) + read_rows(folder / JOURNAL_NAME, torn_end=True)
    # A folder that was prepared earlier may lack the newer fields.
    return {row["path"]: ROW_DEFAULTS | row for row in rows}


def write_index(folder: epath.Path, rows: list[Row]) -> None:
    """Writes the index at once, sorted by path, and removes the journal."""
    ordered = sorted(rows, key=lambda row: row["path"])
    storage.replace_text(folder / INDEX_NAME, "".join(json.dumps(row) + "\n" for row in ordered))
    line_file.remove(folder / JOURNAL_NAME)


def open_journal(folder: epath.Path) -> LineFile:
    """The journal, for `append`; flush it where rows must survive."""
    return line_file.open_lines(folder / JOURNAL_NAME)


def append(journal: LineFile, rows: list[Row]) -> None:
    """Appends finished rows."""
    for row in rows:
        journal.write(json.dumps(row))

"""The tables of an AI-READI tree: `retinal_oct/manifest.tsv` and `participants.tsv`.

Columns differ by release (`person_id` or `participant_id`). `filepath` of the manifest starts with
"/" and is relative to the root of the data set.
"""

from __future__ import annotations

import csv
from pathlib import Path

from training.errors import InputError

PARTICIPANT_COLUMNS = ("person_id", "participant_id")


def dataset_root(root: Path) -> Path:
    """The folder that manifest paths start from: `root`, or its parent for `.../retinal_oct`."""
    return root.parent if root.name == "retinal_oct" else root


def read_manifest(root: Path) -> list[dict[str, str]]:
    """Rows of the manifest by column, [] without one.

    Raises:
      InputError: it cannot be read, or lacks the columns that are needed.
    """
    for path in (root / "retinal_oct" / "manifest.tsv", root / "manifest.tsv"):
        if path.is_file():
            rows = _read_table(path)
            columns = set(rows[0]) if rows else {"filepath", "person_id"}
            if "filepath" not in columns or not columns & set(PARTICIPANT_COLUMNS):
                raise InputError(
                    f"{path} needs the columns filepath and person_id (or participant_id), "
                    f"it has {', '.join(sorted(columns))}"
                )
            return rows
    return []


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        # -sig: tables saved by a spreadsheet may begin with a byte order mark.
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a tab-separated table ({error})") from error
    # Cells beyond the header come under the key None.
    return [{key: value or "" for key, value in row.items() if key} for row in rows]


def recommended_splits(base: Path) -> dict[str, str]:
    """Participant -> train, eval or test from `participants.tsv`; other words are ignored."""
    path = base / "participants.tsv"
    names = {"train": "train", "val": "eval", "validation": "eval", "eval": "eval", "test": "test"}
    splits = {}
    for row in _read_table(path) if path.is_file() else []:
        split = names.get(row.get("recommended_split", "").strip().lower())
        if split:
            splits[participant_of(row)] = split
    return splits


def participant_of(row: dict[str, str]) -> str:
    """The person of a row of either table."""
    return next((row[c].strip() for c in PARTICIPANT_COLUMNS if row.get(c)), "")

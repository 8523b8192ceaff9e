"""Labels of volumes, from a table of the user's, for the probe of `jepa3d.probe`.

A table is a `.csv` or `.tsv` with a column `participant` (or `person_id`, `participant_id`), where
eyes differ a column `laterality` (R or L), and any number of columns of labels. An empty cell is a
volume without this label. A column of numbers with more than `CLASSES` values is a measurement;
any other column names classes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jepa3d.data.laterality import eye_of_word
from training import storage
from training.errors import ConfigError, InputError
from training.typed import suggestion

PARTICIPANT = ("participant", "participant_id", "person_id")
LATERALITY = "laterality"
CLASSES = 10  # more different numbers than that are a measurement
LEAST = 8  # labeled volumes below which nothing can be said


@dataclass(frozen=True)
class Labels:
    """One column of labels for the examples of a source.

    Attributes:
      name: of the column.
      known: bool [V], whether the volume has a label.
      values: float64 [V]; of classes their numbers; 0 where not known.
      classes: names of the classes; empty for a measurement.
      groups: int64 [V], number of the participant: volumes of one person are never split.
    """

    name: str
    known: np.ndarray
    values: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray


def read_labels(
    path: str, columns: Sequence[str], volumes: Sequence[dict[str, Any]]
) -> list[Labels]:
    """The labels of volumes.

    Args:
      path: of the table.
      columns: which to read.
      volumes: index rows of the examples: `participant` and `laterality` are looked at.

    Raises:
      InputError: the table cannot be read, contradicts itself or knows too few of the volumes.
      ConfigError: a column that it does not have.
    """
    rows = _read_table(path)
    header = [name for name in rows[0] if name]
    key = next((name for name in PARTICIPANT if name in header), None)
    if key is None:
        raise InputError(f"{path} has no column participant; it has {', '.join(header)}")
    for column in columns:
        if column not in header:
            raise ConfigError(
                f"config.probe.columns names {column!r}, which {path} does not have"
                f"{suggestion(column, header)}"
            )
    people = sorted({row["participant"] for row in volumes})
    number = {person: place for place, person in enumerate(people)}
    groups = np.array([number[row["participant"]] for row in volumes])
    found = []
    for column in columns:
        texts = _by_eye(path, rows, key, column)
        cells = [_cell(texts, row) for row in volumes]
        found.append(_labels(path, column, cells, groups, people))
    return found


def _read_table(path: str) -> list[dict[str, str]]:
    place = storage.as_path(path)
    try:
        text = place.read_text(encoding="utf-8-sig")  # spreadsheets begin with a byte order mark
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"config.probe.labels = {path} cannot be read ({error}); name a .csv or .tsv table"
        ) from error
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter))
    if not rows:
        raise InputError(f"{path} has no rows; it needs a header and a row for each participant")
    return [{name: (value or "").strip() for name, value in row.items() if name} for row in rows]


def _by_eye(
    path: str, rows: list[dict[str, str]], key: str, column: str
) -> dict[tuple[str, str], str]:
    """(participant, laterality or "") -> cell."""
    texts: dict[tuple[str, str], str] = {}
    for row in rows:
        eye = (row[key], eye_of_word(row.get(LATERALITY, "")))
        cell = row[column]
        if texts.setdefault(eye, cell) != cell:
            person = " ".join(part for part in eye if part)
            raise InputError(
                f"{path} gives {person} two values of {column}: {texts[eye]!r} and {cell!r}; "
                "keep one, or add a column laterality"
            )
    return texts


def _cell(texts: dict[tuple[str, str], str], row: dict[str, Any]) -> str:
    person = row["participant"]
    return texts.get((person, row["laterality"])) or texts.get((person, ""), "")


def _labels(
    path: str, column: str, cells: list[str], groups: np.ndarray, people: list[str]
) -> Labels:
    known = np.array([bool(cell) for cell in cells])
    if known.sum() < LEAST:
        raise InputError(
            f"{path} has {column} of {known.sum()} of the {len(cells)} evaluation volumes, a probe "
            f"needs {LEAST}; their participants are {', '.join(people[:3])}, ..."
        )
    numbers = [_number(cell) for cell in cells if cell]
    given = sorted({cell for cell in cells if cell})
    if None not in numbers and len(set(numbers)) > CLASSES:
        values = np.array([_number(cell) or 0.0 for cell in cells])
        return Labels(column, known, values, (), groups)
    if len(given) > CLASSES:
        raise InputError(f"{path} has {len(given)} classes in {column}, at most {CLASSES} are read")
    if len(given) < 2:
        raise InputError(
            f"{path}: all evaluation volumes have {column} = {given[0]}; nothing can be told apart"
        )
    values = np.array([given.index(cell) if cell else 0 for cell in cells], np.float64)
    return Labels(column, known, values, tuple(given), groups)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None

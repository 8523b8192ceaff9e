"""What is found out about a run and shown to its user: verdicts, evaluations, tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check, under the name of its guard, with the sentence that is read.

    A verdict that did not pass stops the run, unless it is only a `warning`.
    """

    name: str
    passed: bool
    sentence: str
    warning: bool = False


class Watch(Protocol):
    """One guard over the stream of updates: a small state machine on the host.

    Attributes:
      name: of the guard.
      promise: the sentence of the report while nothing has happened.
    """

    name: str
    promise: str

    def check(self, step: int, metrics: Mapping[str, float]) -> Verdict | None:
        """What is wrong at an update, or None; a warning is recorded and lets the run go on."""
        ...


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
      pictures: names of an evaluation's images, one a row and "" for none, shown in a last column
        instead of among the other pictures; empty for a table without pictures.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Metrics, pictures and tables of one evaluation.

    Attributes:
      metrics: name -> value, identical on every process; written as `eval/<name>`.
      images: name -> uint8 `[height, width, 3]` of this process, which writes them as
        `artifacts/<step>/<name>.png`; the names of different processes differ.
      tables: file name -> table (a score for each class), written by the main process.
    """

    metrics: dict[str, float]
    images: dict[str, np.ndarray] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """Facts about a task that need no data.

    Attributes:
      parameter_counts: name of a part -> number of parameters.
      flops_per_example: floating-point operations of one training example (forward and backward).
      batch_keys: key required in a batch -> (shape of one example, dtype name).
    """

    parameter_counts: dict[str, int]
    flops_per_example: float
    batch_keys: dict[str, tuple[tuple[int, ...], str]]

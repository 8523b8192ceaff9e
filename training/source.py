"""Random access to examples, the one thing that a run knows about data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

Example = dict[str, np.ndarray]


@runtime_checkable
class Source(Protocol):
    """Random access to examples. `fingerprint` changes whenever any example may have changed."""

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def identity(self, index: int) -> str:
        """What must not be shared between training and evaluation (a participant, a view)."""
        ...


@runtime_checkable
class PositionedSource(Source, Protocol):
    """A source whose training examples depend on where in the stream they are drawn."""

    def load(self, index: int, position: int) -> Example:
        """The example at a position of the stream: a pure function of data, seed and position.

        Augmentation on the host lives here, so that a resumed run, or one on other hosts, sees the
        same pixels.
        """
        ...


@dataclass(frozen=True)
class Sources:
    """The examples to learn from and, by name, those to evaluate on."""

    train: Source
    evaluation: Mapping[str, Source]


@dataclass(frozen=True)
class FirstExamples:
    """The first few examples of a source, as they are without augmentation."""

    # It has no `load`, so that the stream reads `source[index]`, which is not augmented.
    source: Source
    count: int

    @property
    def fingerprint(self) -> str:
        return f"{self.source.fingerprint}[:{self.count}]"

    def __len__(self) -> int:
        return min(self.count, len(self.source))

    def __getitem__(self, index: int) -> Example:
        return self.source[index]

    def identity(self, index: int) -> str:
        return self.source.identity(index)

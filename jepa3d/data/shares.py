"""Preparation on several hosts: each converts its share, then one run puts the shares together.

Host k of n converts every n-th input into `OUTPUT/shares/k-of-n`, a folder of records like any
other, which is resumed in the same way. A run without a share then does what it always does, in the
same order, but takes a conversion from a share where one holds for the file as it is now: the
result has the bytes that one host alone would have written. What no share has is converted there.
Duplicates are judged and splits assigned only then, since they depend on all inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath

from jepa3d.data.convert import Outcome, Task
from jepa3d.data.index import Row, load_known
from jepa3d.data.inventory import Inventory
from jepa3d.data.plan import fresh_row, rows_of_members
from jepa3d.data.records import shard_path
from training import folder_lock, storage
from training.errors import ConfigError
from training.local_copy import local_copy

FOLDER = "shares"
# The split that records of a share are filed under until they are put together.
SPLIT = "share"


@dataclass(frozen=True)
class Share:
    """One of `count` shares, `number` from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """The share that `2/4` means.

        Raises:
          ConfigError: anything else.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        share = cls(int(found.group(1)), int(found.group(2))) if found else cls(0, 0)
        if not 1 <= share.number <= share.count:
            raise ConfigError(f"--share {text!r}: give K/N with K from 1 to N, such as 2/4")
        return share

    def folder(self, output: epath.Path) -> epath.Path:
        return output / FOLDER / f"{self.number}-of-{self.count}"

    def of(self, inventory: Inventory) -> Inventory:
        """Every `count`-th input: neighbors in a listing are alike, and so are the shares."""
        items = inventory.items[self.number - 1 :: self.count]
        return Inventory(items, inventory.recommended, [])


@dataclass
class FinishedShares:
    """What the shares of a folder hold: rows by path, each with the folder of its record."""

    rows: dict[str, Row] = field(default_factory=dict)
    folders: dict[str, epath.Path] = field(default_factory=dict)
    _open: dict[epath.Path, ArrayRecordDataSource] = field(default_factory=dict)

    def outcomes(self, tasks: list[Task], converted: Iterator[Outcome]) -> Iterator[Outcome]:
        """Outcomes in the order of `tasks`: of a share, else the next of `converted`."""
        for task in tasks:
            row = self._row(task)
            yield next(converted) if row is None else self._outcome(task, row)

    def missing(self, tasks: list[Task]) -> list[Task]:
        """The tasks that no share has done."""
        return [task for task in tasks if self._row(task) is None]

    def _row(self, task: Task) -> Row | None:
        return fresh_row(task.root, task.item, self.rows, SPLIT) if self.rows else None

    def _outcome(self, task: Task, row: Row) -> Outcome:
        record = None
        if row["status"] == "ok":
            path = shard_path(self.folders[task.item.path], SPLIT, row["shard"])
            record = self._reader(path)[row["position"]]
            row = row | {"split": task.split, "shard": None, "position": None}
        return Outcome([row, *rows_of_members(row, task.item)], record)

    def _reader(self, path: epath.Path) -> ArrayRecordDataSource:
        if path not in self._open:
            here = local_copy(path.parent, [path.name])
            self._open[path] = ArrayRecordDataSource([str(here / path.name)])
        return self._open[path]


@contextmanager
def finished(output: epath.Path) -> Iterator[FinishedShares]:
    """The shares of a folder, which nobody else writes meanwhile; they go when the body is done.

    Raises:
      InputError: a share is still being made.
    """
    parent, shares = output / FOLDER, FinishedShares()
    with ExitStack() as locks:
        for folder in sorted(_folders(parent)):
            locks.enter_context(folder_lock.held(folder))
            known = load_known(folder)
            shares.rows |= known
            shares.folders |= dict.fromkeys(known, folder)
        yield shares
        if shares.folders:
            parent.rmtree()


def _folders(parent: epath.Path) -> Iterable[epath.Path]:
    found = storage.list_folder(parent) if parent.exists() else []
    return [folder for folder in found if re.fullmatch(r"\d+-of-\d+", folder.name)]

"""What a run of `prepare` has to do: the inventory compared with the rows of earlier runs.

A row stays when its file is unchanged (same size and time, or else same content), its shard loses
nothing, and what it was compared with (see `duplicates`) stays as well. Shards are never edited:
one with a stale record goes as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jepa3d.config import PrepareSettings
from jepa3d.data.convert import Task, content_hash, identity_of
from jepa3d.data.duplicates import shared_skip, still_compared
from jepa3d.data.index import ROW_DEFAULTS, Row
from jepa3d.data.inventory import InputItem, Inventory
from jepa3d.data.scanners import scanner_from_path
from jepa3d.data.splits import assign_splits
from jepa3d.data.volume import SkipReason
from jepa3d.data.walk import Named

Shard = tuple[str, int]

# Skips that may have another cause than the file, so that a later run tries again.
_RETRIED = (
    SkipReason.MISSING_DECODER,
    SkipReason.UNREADABLE_FILE,
    SkipReason.DECODER_CRASHED,
    SkipReason.MIXED_VOLUMES,
)


@dataclass
class Plan:
    """Rows that stay as they are, and what is to be done."""

    kept: list[Row]
    tasks: list[Task]


def plan_work(
    root: Path,
    inventory: Inventory,
    known: dict[str, Row],
    settings: PrepareSettings,
    moved: dict[str, str],
    shared: dict[str, str],
) -> Plan:
    """Compares the inventory with the rows of earlier runs.

    Args:
      root: the input folder.
      inventory: what lies in it now.
      known: rows of earlier runs by path.
      settings: of the run.
      moved: participant -> split that overrides every other rule.
      shared: path -> path of the same scan of another person; neither may have a record.
    """
    splits = _split_participants(inventory, known, settings) | moved
    fresh = _fresh_rows(root, inventory, known, splits, shared)
    wanted = {path for item in inventory.items for path in (item.members or (item.path,))}
    stale = {
        shard
        for path, row in known.items()
        if (shard := shard_of(row))
        and (path not in wanted or not fresh.get(_owner(row)) or _owner(row) in shared)
    }
    kept = [_named_row(root, named) for named in inventory.named]
    todo = []
    for item in inventory.items:
        row = fresh[item.path]
        if row is None or shard_of(row) in stale:
            todo.append(item)
        else:
            # The new time of an unchanged file is kept, or every later run would hash it again.
            row = row | identity_of(root, item)
            kept += [row, *rows_of_members(row, item)]
    return Plan(kept, [Task(root, item, splits[item.participant], settings) for item in todo])


def _fresh_rows(
    root: Path,
    inventory: Inventory,
    known: dict[str, Row],
    splits: dict[str, str],
    shared: dict[str, str],
) -> dict[str, Row | None]:
    """The known row of each item that still holds, None for the others."""
    fresh = {
        item.path: fresh_row(root, item, known, splits[item.participant])
        for item in inventory.items
    }
    fresh |= {
        path: shared_skip(known[path], other, known[other]["participant"])
        for path, other in shared.items()
    }
    # What one row was compared with may have been compared with a third one.
    while lost := [path for path, row in fresh.items() if row and not still_compared(row, fresh)]:
        fresh |= dict.fromkeys(lost)
    return fresh


def _named_row(root: Path, named: Named) -> Row:
    scanner = scanner_from_path((root / named.path).as_posix())
    why = {"reason": named.reason.value, "detail": named.detail}
    return ROW_DEFAULTS | {"path": named.path, "scanner": scanner} | why


def fresh_row(root: Path, item: InputItem, known: dict[str, Row], split: str) -> Row | None:
    """The known row of an item when it still holds, else None."""
    row = known.get(item.path)
    if row is None or row["reason"] in _RETRIED or row["part_of"] is not None:
        return None
    if row["participant"] != item.participant or row["split"] not in (None, split):
        return None
    if any(known.get(path, {}).get("part_of") != item.path for path in item.members[1:]):
        return None
    now = identity_of(root, item)
    if row["bytes"] != now["bytes"]:
        return None
    if row["modified_ns"] == now["modified_ns"] or row["sha256"] == content_hash(root, item):
        return row
    return None


def rows_of_members(row: Row, item: InputItem) -> list[Row]:
    """Rows of the further files of an item's volume."""
    return [row | {"path": path, "part_of": item.path} for path in item.members[1:]]


def _owner(row: Row) -> str:
    return row["part_of"] or row["path"]


def shard_of(row: Row) -> Shard | None:
    """(split, number) of the shard that holds a row's record, None for a skip."""
    return (row["split"], row["shard"]) if row["status"] == "ok" else None


def _split_participants(
    inventory: Inventory, known: dict[str, Row], settings: PrepareSettings
) -> dict[str, str]:
    promising: dict[str, bool] = {}
    for item in inventory.items:
        promising[item.participant] = promising.get(item.participant, False) or item.promising
    earlier = {row["participant"]: row["split"] for row in known.values() if row["split"]}
    return assign_splits(
        promising, inventory.recommended, earlier, settings.eval_fraction, settings.split_seed
    )

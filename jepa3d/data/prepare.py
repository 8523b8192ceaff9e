"""`prepare`: a folder of OCT files to sharded records and an index, once, before any training.

The output folder holds ArrayRecord shards, `features.json` and `dataset_info.json` (a dataset of
tensorflow-datasets), `index.jsonl` (one row per input file) and `settings.json`. Properties:

* every input file has a row, kept or skipped with its reason;
* a second run does nothing; an added file adds a record; a changed or removed file takes its shard
  with it, whose other records are made again;
* an interrupted run resumes: shards appear under their name only when complete, and the journal
  says what is in them;
* the result does not depend on the number of workers.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from etils import epath

from jepa3d.config import PrepareSettings
from jepa3d.data import index as index_files
from jepa3d.data.account import Account, account_of
from jepa3d.data.convert import Outcome
from jepa3d.data.duplicates import Register, Unjudged
from jepa3d.data.index import Row
from jepa3d.data.inventory import Inventory, take_inventory
from jepa3d.data.plan import Plan, plan_work, shard_of
from jepa3d.data.records import (
    ShardWriter,
    parse_shard_name,
    shard_path,
    write_dataset_info,
    write_json,
)
from jepa3d.data.shares import SPLIT, FinishedShares, Share, finished
from jepa3d.data.splits import split_score
from jepa3d.data.workers import run_all
from training import folder_lock, storage
from training.errors import InputError
from training.line_file import LineFile
from training.storage import PathLike
from training.typed import build, shallow

Progress = Callable[[int, int, Row], None]


def prepare(
    input_dir: str | os.PathLike,
    output_dir: PathLike,
    settings: PrepareSettings,
    progress: Progress | None = None,
    share: Share | None = None,
) -> Account:
    """Converts every volume under `input_dir` into records under `output_dir`.

    With `settings.workers` > 0 processes are spawned, so a script that calls this needs the usual
    `if __name__ == "__main__":` guard.

    Args:
      input_dir: an AI-READI tree, or any folder with DICOM, .vol, .npy, .npz or image folders.
      output_dir: on a disk or in a bucket, made if missing; one with other settings is refused.
      settings: see `PrepareSettings`.
      progress: called with (items done, items in all, row) after each input of this run.
      share: convert this share only, for a later run without one; see `jepa3d.data.shares`.

    Returns:
      The account; `Account.fault()` says whether too little could be used.

    Raises:
      InputError: missing or empty input, output that cannot be written or has other settings.
      ConfigError: settings outside their limits, or that contradict each other.
    """
    # Whoever made them in code has not had their limits checked.
    settings = build(PrepareSettings, shallow(settings), "prepare")
    root, output = Path(input_dir).resolve(), storage.absolute(output_dir)
    with storage.explained(output, "give the same command again: it goes on where it was"):
        inventory = take_inventory(root, output, settings)
        _make_output(output)
        if share is not None:
            return _prepare_share(root, output, inventory, settings, progress, share)
        with folder_lock.held(output), finished(output) as shares:
            return _prepare_alone(root, output, inventory, settings, progress, shares)


def _prepare_share(
    root: Path,
    output: epath.Path,
    inventory: Inventory,
    settings: PrepareSettings,
    progress: Progress | None,
    share: Share,
) -> Account:
    """Brings one share up to date; only its own folder is held."""
    _check_settings(output, settings)
    folder, part = storage.make_folder(share.folder(output)), share.of(inventory)
    with folder_lock.held(folder):
        _remove_partial(folder)
        unsplit = {item.participant: SPLIT for item in part.items}
        run = _one_pass(root, folder, part, settings, unsplit, {}, progress, Unjudged())
    return account_of(run.rows, len(run.new_paths), settings.minimum_ok_fraction)


def _prepare_alone(
    root: Path,
    output: epath.Path,
    inventory: Inventory,
    settings: PrepareSettings,
    progress: Progress | None,
    shares: FinishedShares,
) -> Account:
    """All passes, while no other run writes into the folder."""
    _check_settings(output, settings)
    _remove_partial(output)
    _check_same_inputs(output, inventory)
    one_pass = functools.partial(_one_pass, root, output, inventory, settings, shares=shares)
    shared: dict[str, str] = {}
    run = one_pass({}, shared, progress)
    new = run.new_paths
    # The further passes take records back or move them to another split; they are not new.
    while run.register.shared:
        shared |= run.register.shared
        run = one_pass({}, shared, None)
    moved = _to_move(inventory, run.rows, settings)
    if moved:
        run = one_pass(moved, shared, None)
    write_dataset_info(output, settings.shape, settings.patch, _shard_lengths(run.rows))
    kept = {row["path"] for row in run.rows if row["status"] == "ok"}
    return account_of(run.rows, len(new & kept), settings.minimum_ok_fraction)


def _one_pass(
    root: Path,
    output: epath.Path,
    inventory: Inventory,
    settings: PrepareSettings,
    moved: dict[str, str],
    shared: dict[str, str],
    progress: Progress | None,
    register: Register | None = None,
    shares: FinishedShares | None = None,
) -> _Run:
    """Brings the folder up to date; `moved` overrides splits, `shared` scans have no record."""
    known = index_files.load_known(output)
    plan = plan_work(root, inventory, known, settings, moved, shared)
    # First the rows, then the files: an interruption may leave a shard without rows, which the
    # next run deletes, but never rows without their shard.
    index_files.write_index(output, plan.kept)
    _remove_orphans(output, plan.kept)
    journal = index_files.open_journal(output)
    run = _Run(output, settings, journal, list(plan.kept), register=register or Register())
    run.register.add(plan.kept)
    try:
        _convert_all(run, plan, progress, shares or FinishedShares())
    finally:
        run.close()
    _close_gaps(run)
    index_files.write_index(output, run.rows)
    return run


def _to_move(inventory: Inventory, rows: list[Row], settings: PrepareSettings) -> dict[str, str]:
    """A participant to move when chance left train or eval without a volume, in a small set."""
    kept = {row["participant"]: row["split"] for row in rows if row["status"] == "ok"}
    free = [name for name in kept if name not in inventory.recommended]
    # As if the share for eval were changed: the lowest score is the first to go there.
    free.sort(key=lambda name: split_score(name, settings.split_seed))
    if free and "train" not in kept.values():
        return {free[-1]: "train"}
    if free and settings.eval_fraction > 0 and len(kept) > 1 and "eval" not in kept.values():
        return {free[0]: "eval"}
    return {}


def _make_output(output: epath.Path) -> None:
    try:
        storage.make_folder(output)
        others = [found for found in storage.list_folder(output) if found.name != folder_lock.LOCK]
        if others and not (output / index_files.SETTINGS_NAME).exists():
            raise InputError(
                f"output folder {output} holds other files; choose an empty or a new one"
            )
    except OSError as error:
        raise _not_writable(output, error) from error


def _not_writable(output: epath.Path, error: OSError) -> InputError:
    return InputError(f"output folder {output} cannot be written ({error.strerror or error})")


def _remove_partial(output: epath.Path) -> None:
    """Removes what a run that was killed left behind, in a folder that this run holds."""
    try:
        for found in storage.list_folder(output):
            if found.name.startswith(".partial-"):
                found.unlink()
    except OSError as error:
        raise _not_writable(output, error) from error


def _check_settings(output: epath.Path, settings: PrepareSettings) -> None:
    """Writes the settings of a new folder, or compares them with those of an old one."""
    path = output / index_files.SETTINGS_NAME
    try:
        if not path.exists():
            write_json(path, settings.record_fields)
            return
        if not storage.is_bucket(output) and not os.access(output, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise _not_writable(output, error) from error
    stored = read_settings(output)
    if stored != settings.record_fields:
        names = [k for k in settings.record_fields if stored.get(k) != settings.record_fields[k]]
        raise InputError(
            f"{output} was prepared with other settings ({', '.join(names)}); choose another "
            "output folder"
        )


def _check_same_inputs(output: epath.Path, inventory: Inventory) -> None:
    """Refuses to replace the records of one input folder by those of another."""
    known = index_files.load_known(output)
    if known and not any(item.path in known for item in inventory.items):
        raise InputError(
            f"{output} holds records of other inputs (such as {next(iter(known))}); choose another "
            "output folder, or prepare the common parent of both inputs"
        )


def read_settings(folder: PathLike) -> dict:
    """The settings that a folder was prepared with.

    Raises:
      InputError: missing or damaged `settings.json`.
    """
    path = storage.as_path(folder) / index_files.SETTINGS_NAME
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); run `podvision prepare jepa3d` into a new folder"
        ) from error


def _remove_orphans(output: epath.Path, kept: list[Row]) -> None:
    """Deletes shards that no row refers to: of a run that was interrupted, or stale."""
    referenced = {shard_of(row) for row in kept}
    for path in storage.list_folder(output):
        shard = parse_shard_name(path)
        if shard is not None and shard not in referenced:
            path.unlink()


@dataclass
class _Run:
    """Open shards and finished rows of one run."""

    output: epath.Path
    settings: PrepareSettings
    journal: LineFile
    rows: list[Row]
    new_paths: set[str] = field(default_factory=set)
    register: Register = field(default_factory=Register)
    open_shards: dict[str, tuple[ShardWriter, int, list[Row]]] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> Row:
        """Files an outcome: a skip at once, a record into the open shard of its split.

        Returns:
          The row that the index gets, which of a scan that is there already is a skip.
        """
        first = outcome.rows[0]
        judged = self.register.judge(first) if outcome.record is not None else first
        if outcome.record is None or judged["status"] != "ok":
            own = ("path", "part_of")
            rows = [judged | {name: row[name] for name in own} for row in outcome.rows]
            index_files.append(self.journal, rows)
            self.rows += rows
            return judged
        split = judged["split"]
        if split not in self.open_shards:
            number = self._free_number(split)
            writer = ShardWriter(shard_path(self.output, split, number))
            self.open_shards[split] = (writer, number, [])
        writer, number, pending = self.open_shards[split]
        place = {"shard": number, "position": writer.write(outcome.record)}
        pending += [row | place for row in outcome.rows]
        self.new_paths.add(judged["path"])
        if writer.count >= self.settings.records_per_shard:
            self._commit(split)
        return judged

    def _free_number(self, split: str) -> int:
        # The lowest free one: numbers that stale shards gave up are used again.
        taken = {row["shard"] for row in self.rows if row["split"] == split}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def _commit(self, split: str) -> None:
        writer, _, pending = self.open_shards.pop(split)
        writer.commit()
        index_files.append(self.journal, pending)
        self.journal.flush()  # The shard is of use only with the rows that say what is in it.
        self.rows += pending

    def close(self) -> None:
        """Commits what is open, also when the run ends early."""
        for split in list(self.open_shards):
            self._commit(split)
        self.journal.close()


def _convert_all(run: _Run, plan: Plan, progress: Progress | None, shares: FinishedShares) -> None:
    converted = run_all(shares.missing(plan.tasks), run.settings.workers)
    outcomes = shares.outcomes(plan.tasks, converted)
    for done, outcome in enumerate(outcomes, 1):
        row = run.add(outcome)
        if progress is not None:
            progress(done, len(plan.tasks), row)


def _close_gaps(run: _Run) -> None:
    """Numbers the shards of each split 0, 1, 2, ... without holes, as the dataset format needs.

    The highest shard is linked into the hole, the index names the new place, and only then does the
    old name go, so that an interruption at any point leaves a readable folder.
    """
    for split in {row["split"] for row in run.rows if row["status"] == "ok"}:
        while True:
            taken = {row["shard"] for row in run.rows if shard_of(row) and row["split"] == split}
            hole = next(number for number in range(len(taken) + 1) if number not in taken)
            if hole > max(taken):
                break
            old = shard_path(run.output, split, max(taken))
            storage.duplicate(old, shard_path(run.output, split, hole))
            for row in run.rows:
                if shard_of(row) == (split, max(taken)):
                    row["shard"] = hole
            index_files.write_index(run.output, run.rows)
            old.unlink()


def _shard_lengths(rows: list[Row]) -> dict[str, list[int]]:
    lengths: dict[str, dict[int, int]] = {}
    for row in rows:
        if row["status"] == "ok" and row["part_of"] is None:
            shards = lengths.setdefault(row["split"], {})
            shards[row["shard"]] = shards.get(row["shard"], 0) + 1
    return {split: [shards[i] for i in sorted(shards)] for split, shards in lengths.items()}

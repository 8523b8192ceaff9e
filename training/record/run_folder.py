"""The work folder: resolved config, end markers, and whether it can be written."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.errors import InputError
from training.files import read_json_object, replace_text
from training.registry import make_config, versions
from training.typed import plain
from training.verdict import Table

DONE, PREEMPTED = "DONE", "PREEMPTED"
LOCK = ".lock"


def open_run_folder(workdir: Path) -> None:
    """Creates the folder and proves that files can be written in it.

    Raises:
      InputError: the folder cannot be made or written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.write_text("probe", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"the work folder {workdir} cannot be written ({error.strerror}); choose another "
            "--workdir or change its permissions"
        ) from error


def source_revision() -> str:
    """Git commit of the code, with `-dirty` if it was changed, or `unknown`."""
    folder = Path(__file__).parent
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return "unknown"
    return result.stdout.strip() or "unknown"


@contextmanager
def held_run_folder(workdir: Path, main: bool) -> Iterator[None]:
    """The folder, made and written by this run alone while the body runs.

    Args:
      main: whether this process is the one that writes.

    Raises:
      InputError: it cannot be made or written, another run holds it, or its disk is full.
    """
    with ExitStack() as stack:
        if main:
            open_run_folder(workdir)
            stack.enter_context(_lock(workdir))
        stack.enter_context(_full_disk_explained(workdir))
        yield


@contextmanager
def _lock(workdir: Path) -> Iterator[None]:
    """Held by this process; the system lets go of it however the process ends.

    Two runs in one folder would clear away each other's unfinished checkpoints and metrics.
    """
    with (workdir / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"another run is at work in {workdir} ({file.read().strip()}); wait for its end, "
                "or choose another --workdir"
            ) from error
        except OSError as error:
            # Some network file systems have no locks; the run goes on without this check.
            logging.warning("%s cannot be locked (%s)", workdir, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


@contextmanager
def _full_disk_explained(workdir: Path) -> Iterator[None]:
    """Turns the system's error about space or quota into a sentence; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"the work folder {workdir} can take no more ({error.strerror}); free space and give "
            "the same command again: it goes on from the newest checkpoint"
        ) from error


def resolved_config(config: TrainConfig) -> dict[str, Any]:
    """The config as it comes back from a JSON file."""
    return json.loads(json.dumps(plain(config)))


def write_config(
    workdir: Path, config: TrainConfig, overrides: list[str], total_updates: int
) -> None:
    """Writes `config.json`; only when the run is known to be able to go on in this folder."""
    content = {
        "config": resolved_config(config),
        "total_updates": total_updates,
        "overrides": overrides,
        "versions": versions(),
        "revision": source_revision(),
        "arguments": sys.argv[1:],
    }
    replace_text(workdir / "config.json", json.dumps(content, indent=1))


def write_table(workdir: Path, name: str, table: Table) -> None:
    """Writes `tables/<name>.json` for the report."""
    folder = workdir / "tables"
    folder.mkdir(exist_ok=True)
    content = {"title": table.title, "columns": table.columns, "rows": table.rows}
    replace_text(folder / f"{name}.json", json.dumps(content))


def ledger_table(ledger: Sequence[Mapping[str, float]]) -> Table:
    """One row for each refresh of the state, oldest first."""
    columns = tuple(ledger[-1])
    rows = [tuple(row.get(name) for name in columns) for row in ledger]
    return Table("Ledger of refreshes", columns, rows)


def read_ledger(workdir: Path, before: int) -> list[dict[str, float]]:
    """The ledger rows of earlier launches for steps before `before`, oldest first.

    Raises:
      InputError: the file is damaged.
    """
    path = workdir / "tables" / "ledger.json"
    if not path.exists():
        return []
    content = read_json_object(path)
    rows = [dict(zip(content["columns"], row)) for row in content["rows"]]
    return [row for row in rows if row["step"] < before]


def read_config(workdir: Path) -> TrainConfig:
    """The typed config of a work folder.

    Raises:
      InputError: there is no readable `config.json`.
      ConfigError: it does not fit this version of the program.
    """
    return make_config(saved_config(workdir))


def saved_config(workdir: Path) -> dict[str, Any]:
    """The resolved config of a work folder as it was written.

    Raises:
      InputError: there is no readable `config.json`.
    """
    path = workdir / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} cannot be read, so {workdir} is not the work folder of a run; "
            "pass the --workdir of a training run"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise InputError(f"{path} does not hold the config of a run; restore it")
    return content["config"]


def mark(workdir: Path, marker: str | None, step: int) -> None:
    """Leaves one marker file with the step, or removes both."""
    for name in (DONE, PREEMPTED):
        (workdir / name).unlink(missing_ok=True)
    if marker is not None:
        (workdir / marker).write_text(f"{step}\n", encoding="utf-8")

"""The work folder: resolved config, end markers, and whether it can be written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from etils import epath

from training import folder_lock, storage
from training.config import TrainConfig
from training.errors import InputError
from training.record.left_as_found import left_as_found
from training.registry import make_config, versions
from training.storage import PathLike, read_json_object, replace_text
from training.typed import plain
from training.verdict import Table

DONE, PREEMPTED = "DONE", "PREEMPTED"
AGAIN = "give the same command again: it goes on from the newest checkpoint"


def open_run_folder(workdir: PathLike) -> epath.Path:
    """Creates the folder, proves that files can be written in it, and returns its path.

    Raises:
      InputError: the folder cannot be made or written.
    """
    try:
        folder = storage.make_folder(workdir)
        probe = folder / ".writable"
        probe.write_text("probe")
        probe.unlink()
    except (OSError, *storage.failures()) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"the work folder {workdir} cannot be written ({reason}); choose another "
            "--workdir or change its permissions"
        ) from error
    return folder


def source_revision() -> str:
    """Git commit of the code, with `-dirty` if it was changed, or `unknown`."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=epath.Path(__file__).parent,  # of the code, wherever the command was given
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return "unknown"
    return result.stdout.strip() or "unknown"


@contextmanager
def held_run_folder(workdir: PathLike, main: bool) -> Iterator[None]:
    """The folder, made and written by this run alone while the body runs.

    Args:
      main: whether this process is the one that writes.

    Raises:
      InputError: it cannot be made or written, another run holds it, its disk is full, or its
        bucket does not answer.
    """
    with ExitStack() as stack:
        stack.enter_context(storage.explained(workdir, AGAIN))
        if main:
            # Entered before the lock, and so left after it: it removes what the lock has made.
            stack.enter_context(left_as_found(workdir))
            stack.enter_context(folder_lock.held(open_run_folder(workdir)))
        yield


def resolved_config(config: TrainConfig) -> dict[str, Any]:
    """The config as it comes back from a JSON file."""
    return json.loads(json.dumps(plain(config)))


def write_config(
    workdir: PathLike, config: TrainConfig, overrides: list[str], total_updates: int
) -> None:
    """Writes `config.json`, which makes the folder a run's: not before the start is accepted."""
    content = {
        "config": resolved_config(config),
        "total_updates": total_updates,
        "overrides": overrides,
        "versions": versions(),
        "revision": source_revision(),
        "arguments": sys.argv[1:],
    }
    replace_text(storage.as_path(workdir) / "config.json", json.dumps(content, indent=1))


def write_table(workdir: PathLike, name: str, table: Table) -> None:
    """Writes `tables/<name>.json` for the report."""
    content = {"title": table.title, "columns": table.columns, "rows": table.rows}
    if table.pictures:
        # As their files are named.
        content["pictures"] = [name.replace("/", "_") for name in table.pictures]
    replace_text(storage.as_path(workdir) / "tables" / f"{name}.json", json.dumps(content))


def ledger_table(ledger: Sequence[Mapping[str, float]]) -> Table:
    """One row for each refresh of the state, oldest first."""
    columns = tuple(ledger[-1])
    rows = [tuple(row.get(name) for name in columns) for row in ledger]
    return Table("Ledger of refreshes", columns, rows)


def read_ledger(workdir: PathLike, before: int) -> list[dict[str, float]]:
    """The ledger rows of earlier launches for steps before `before`, oldest first.

    Raises:
      InputError: the file is damaged.
    """
    path = storage.as_path(workdir) / "tables" / "ledger.json"
    if not path.exists():
        return []
    content = read_json_object(path)
    rows = [dict(zip(content["columns"], row)) for row in content["rows"]]
    # Not that of `before` itself: a checkpoint holds the state before its refresh, which a resumed
    # run makes again.
    return [row for row in rows if row["step"] < before]


def read_config(workdir: PathLike, overrides: Sequence[str] = ()) -> TrainConfig:
    """The typed config of a work folder, with `a.b=text` overrides laid over it.

    Raises:
      InputError: there is no readable `config.json`.
      ConfigError: it does not fit this version of the program.
    """
    return make_config(saved_config(workdir), overrides)


def saved_config(workdir: PathLike) -> dict[str, Any]:
    """The resolved config of a work folder as it was written.

    Raises:
      InputError: there is no readable `config.json`.
    """
    path = storage.as_path(workdir) / "config.json"
    try:
        with storage.explained(workdir, "give the same command again"):
            content = json.loads(storage.read_text(path))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} cannot be read, so {workdir} is not the work folder of a run; "
            "pass the --workdir of a training run"
        ) from error
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict) or "system" not in config:
        raise InputError(f"{path} does not hold the config of a run; restore it")
    return config


def mark(workdir: PathLike, marker: str | None, step: int) -> None:
    """Leaves one marker file with the step, or removes both."""
    folder = storage.as_path(workdir)
    for name in (DONE, PREEMPTED):
        (folder / name).unlink(missing_ok=True)
    if marker is not None:
        replace_text(folder / marker, f"{step}\n")

"""The work folder: resolved config, end markers, and whether it can be written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.errors import InputError
from training.registry import make_config, versions
from training.task import Table
from training.typed import plain

DONE, PREEMPTED = "DONE", "PREEMPTED"


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


def write_config(
    workdir: Path, config: TrainConfig, overrides: list[str], total_updates: int, main: bool
) -> dict[str, Any]:
    """Writes `config.json` (on the main process) and returns the resolved config as JSON."""
    resolved = plain(config)
    content = {
        "config": resolved,
        "total_updates": total_updates,
        "overrides": overrides,
        "versions": versions(),
        "revision": source_revision(),
        "arguments": sys.argv[1:],
    }
    text = json.dumps(content, indent=1)
    if main:
        (workdir / "config.json").write_text(text, encoding="utf-8")
    return json.loads(json.dumps(resolved))


def write_table(workdir: Path, name: str, table: Table) -> None:
    """Writes `tables/<name>.json` for the report."""
    folder = workdir / "tables"
    folder.mkdir(exist_ok=True)
    content = {"title": table.title, "columns": table.columns, "rows": table.rows}
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def ledger_table(ledger: Sequence[Mapping[str, float]]) -> Table:
    """One row for each refresh of the state, oldest first."""
    columns = tuple(ledger[-1])
    rows = [tuple(row.get(name) for name in columns) for row in ledger]
    return Table("Ledger of refreshes", columns, rows)


def read_ledger(workdir: Path, before: int) -> list[dict[str, float]]:
    """The ledger rows of earlier launches for steps before `before`, oldest first."""
    path = workdir / "tables" / "ledger.json"
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [dict(zip(content["columns"], row)) for row in content["rows"]]
    return [row for row in rows if row["step"] < before]


def read_config(workdir: Path) -> TrainConfig:
    """The typed config of a work folder.

    Raises:
      InputError: there is no readable `config.json`.
      ConfigError: it does not fit this version of the program.
    """
    path = workdir / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} cannot be read, so {workdir} is not the work folder of a run; "
            "pass the --workdir of a training run"
        ) from error
    return make_config(content["config"])


def mark(workdir: Path, marker: str | None, step: int) -> None:
    """Leaves one marker file with the step, or removes both."""
    for name in (DONE, PREEMPTED):
        (workdir / name).unlink(missing_ok=True)
    if marker is not None:
        (workdir / marker).write_text(f"{step}\n", encoding="utf-8")

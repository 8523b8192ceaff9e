"""One finding of the preflight: a row of its table, and facts for the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PASS, WARN, SKIP, FAIL = "pass", "warn", "skipped", "FAIL"


@dataclass(frozen=True)
class Row:
    """The outcome of one check.

    Attributes:
      check: its name, as in docs/preflight.md.
      state: `pass`, `warn` (worth a look, the run may start), `skipped` (not looked at, and why) or
        `FAIL` (the run must not start).
      sentence: what was found; for a failure also where, and what to do.
      facts: the figures behind it, for `--json`.
      lines: further lines for the reader (a small table).
    """

    check: str
    state: str
    sentence: str
    facts: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything but the lines, which repeat facts."""
        return {key: value for key, value in asdict(self).items() if key != "lines"}


def failed(rows: Sequence[Row]) -> bool:
    """Whether any row forbids the run."""
    return any(row.state == FAIL for row in rows)


def one_line(error: BaseException) -> str:
    """The message of an error as a single line."""
    return " ".join(str(error).split())

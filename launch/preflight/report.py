"""How the rows of a preflight are shown."""

from __future__ import annotations

from collections.abc import Sequence

from launch.preflight.rows import FAIL, SKIP, WARN, Row

STATE_WIDTH, CHECK_WIDTH = 8, 12


def printed(stage: str, row: Row) -> str:
    """A row for a terminal, with its further lines below."""
    name = f"{stage}: {row.check}" if stage else row.check
    width = CHECK_WIDTH + (len(stage) + 2 if stage else 0)
    head = f"{row.state:<{STATE_WIDTH}} {name:<{width}} "
    return "\n".join([head + row.sentence, *(" " * len(head) + line for line in row.lines)])


def summary(rows: Sequence[Row]) -> str:
    """The last line: whether the run may start."""
    failures = [row for row in rows if row.state == FAIL]
    if failures:
        first, more = failures[0], len(failures) - 1
        also = f" (and {more} more)" if more else ""
        return f"refused: {first.check}: {first.sentence}{also}"
    counts = {state: sum(row.state == state for row in rows) for state in (WARN, SKIP)}
    notes = [f"{count} {state}" for state, count in counts.items() if count]
    return "nothing speaks against the run" + (f" ({', '.join(notes)})" if notes else "")

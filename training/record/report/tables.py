"""Tables of the page: the system's own, evaluation metrics, recorded steps."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.record.progress import format_number
from training.record.report import pictures
from training.record.report.read import RunRecord

SHOWN_ROWS = 200


def table_html(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: set[int], keys: set[int]
) -> str:
    """A table in a scrolling box.

    `rows` hold escaped HTML; the columns in `numeric` stand right, those in `keys` do not wrap.
    """

    def kind(index: int) -> str:
        return "n" if index in numeric else "k" if index in keys else "t"

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(f'<{tag} class="{kind(i)}">{text}</{tag}>' for i, text in enumerate(texts))

    head = cells("th", [html.escape(name) for name in columns])
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def cell_text(value: Any) -> str:
    """A value as a reader wants it: digits grouped, four significant digits, yes and no."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return format_number(value) if isinstance(value, float) else str(value)


def evaluation_table(run: RunRecord) -> str:
    """First, last, lowest and highest value of every evaluation metric."""
    rows = []
    for name, (steps, values) in run.curves.items():
        # `nanargmin` raises where every value is NaN.
        if not name.startswith("eval/") or not np.isfinite(values).any():
            continue
        low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
        cells = [name.removeprefix("eval/"), format_number(values[0]), format_number(values[-1])]
        for index in (low, high):
            cells.append(f"{format_number(values[index])} @ {int(steps[index]):,}")
        rows.append([html.escape(cell) for cell in cells])
    if not rows:
        return '<p class="soft">No evaluation has been logged.</p>'
    columns = ["Metric", "First", "Last", "Lowest @ step", "Highest @ step"]
    return table_html(columns, rows, {1, 2, 3, 4}, {0})


def system_tables(run: RunRecord) -> str:
    """The tables of the system (data account, densification ledger, parameters)."""
    return "".join(_system_table(table, {}) for table in run.tables if "pictures" not in table)


def pictured_tables(run: RunRecord) -> str:
    """Those of the system's tables that have pictures."""
    files = pictures.pictures_by_name(run.workdir)
    parts = []
    for table in run.tables:
        images = {}
        for name in filter(None, table.get("pictures", ())):
            # A table of a few pictures that are gone is still worth reading.
            if name in files and (image := pictures.in_table(files[name], run.problems)):
                images[name] = image
        if "pictures" in table:
            parts.append(_system_table(table, images))
    return "".join(parts)


def _system_table(table: dict[str, Any], images: dict[str, str]) -> str:
    """One table; `images`: HTML of the pictures that its rows name."""
    rows, columns = table["rows"], [str(column) for column in table["columns"]]
    numeric = {
        index
        for index in range(len(columns))
        if rows and all(_is_number(row[index]) for row in rows)
    }
    cells = [[html.escape(cell_text(value)) for value in row] for row in rows]
    if images:
        columns.append("Picture")
        for row, name in zip(cells, table["pictures"], strict=True):
            row.append(images.get(name, ""))
    note = ""
    if len(rows) > SHOWN_ROWS:
        half = SHOWN_ROWS // 2
        cells = cells[:half] + cells[-half:]
        note = f'<p class="soft">The first and last {half} of {len(rows):,} rows.</p>'
    body = table_html(columns, cells, numeric, {0} - numeric)
    return f"<h2>{html.escape(str(table['title']))}</h2>{body}{note}"


def recordings(run: RunRecord) -> str:
    """The steps that the flight recorder kept, with the command that runs them again."""
    if not run.recordings:
        return ""
    rows = []
    for record in run.recordings:
        step = record["step"]
        command = f"podvision replay --workdir {run.workdir.name} --step {step}"
        cells = [f"{step:,}", str(record.get("guard")), str(record.get("reason")), command]
        rows.append([html.escape(cell) for cell in cells])
        rows[-1][3] = f"<code>{rows[-1][3]}</code>"
    table = table_html(["Step", "Guard", "Reason", "To run it again"], rows, {0}, {1})
    return f"<h2>Recorded steps</h2>{table}"


def _is_number(value: Any) -> bool:
    # An empty cell does not make a column of numbers one of text; a bool is an int to Python.
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))

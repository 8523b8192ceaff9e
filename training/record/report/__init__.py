"""`report.html`: one self-contained page about a run, built only from its work folder.

No network, no scripts from elsewhere; equal folders give equal bytes. `read` loads the folder,
`curves` chooses the charts, `chart` draws them, `sections` and `pictures` write the rest.
"""

from __future__ import annotations

import html

from etils import epath

from training import storage
from training.errors import InputError
from training.record.progress import format_number
from training.record.report import curves, pictures, sections, style, tables, verdicts
from training.record.report.chart import draw
from training.record.report.read import RunRecord, read_run
from training.storage import PathLike


def write_report(workdir: PathLike) -> epath.Path:
    """Writes `workdir/report.html` in one piece and returns its path.

    Raises:
      InputError: the work folder does not exist, its disk is full or its bucket does not answer.
    """
    workdir = storage.as_path(workdir)
    with storage.explained(workdir, "write the report again"):
        if not workdir.is_dir():
            raise InputError(f"the work folder {workdir} does not exist; check --workdir")
        path = workdir / "report.html"
        storage.replace_text(path, render(read_run(workdir)))
    return path


def render(run: RunRecord) -> str:
    """The page as HTML."""
    # First: they may name pictures that cannot be read.
    shown = pictures.section(run) + tables.pictured_tables(run)
    charts = dict(curves.sections(run))
    evaluation = charts.pop("Evaluation", [])
    parts = [
        sections.header(run),
        sections.tiles(run),
        "<h2>Guards</h2>",
        verdicts.section(run),
        sections.problems(run),
        "<h2>Evaluation</h2>",
        _grid(run, evaluation),
        f"<details{'' if evaluation else ' open'}><summary>First, last, lowest and highest "
        f"values</summary>{tables.evaluation_table(run)}</details>",
        "<h2>Pictures</h2>",
        shown,
    ]
    for title, group in charts.items():
        parts += [f"<h2>{html.escape(title)}</h2>", _grid(run, group)]
    parts += [
        _constants(run),
        "<h2>Wall time</h2>",
        sections.goodput_bar(run),
        tables.system_tables(run),
        tables.recordings(run),
        "<h2>Config and versions</h2>",
        sections.provenance(run),
    ]
    title = html.escape(sections.title(run))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{style.CSS}</style></head><body>"
        f"{''.join(parts)}<script>{style.SCRIPT}</script></body></html>\n"
    )


def _grid(run: RunRecord, charts: list) -> str:
    figures = "".join(draw(chart, run.last_step) for chart in charts)
    return f'<div class="charts">{figures}</div>' if figures else ""


def _constants(run: RunRecord) -> str:
    values = [f"{name} = {format_number(value)}" for name, value in curves.constants(run).items()]
    if not values:
        return ""
    return f'<p class="soft">Constant, so without a curve: {html.escape(", ".join(values))}.</p>'

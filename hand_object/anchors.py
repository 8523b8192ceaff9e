"""Published figures to read one's own by, each table with the protocol that it was measured by.

Figures of different protocols are not comparable digit by digit: registration, what stands for a
surface (vertices or points), frames and units differ. A printed table names both protocols.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from training.errors import ConfigError
from training.verdict import Table

# Figure of `metrics.scores` -> heading.
COLUMNS = {
    "mpjpe": "MPJPE mm",
    "chamfer_icp": "CD cm2",
    "f5_icp": "F5 %",
    "f10_icp": "F10 %",
    "chamfer_hand": "CD_h cm2",
    "penetration_volume": "IV cm3",
    "contact_accuracy": "CA %",
    "jerk": "jerk m/s3",
    "success": "success %",
    "hours": "hours",
}


@dataclass(frozen=True)
class Anchors:
    """Rows: method -> figures by the names of COLUMNS; a figure that was not given is not there."""

    title: str
    protocol: str
    source: str
    rows: Mapping[str, Mapping[str, float]]


def _row(*figures: float | None, names: tuple[str, ...]) -> dict[str, float]:
    return {name: figure for name, figure in zip(names, figures) if figure is not None}


_ALL = tuple(COLUMNS)
_CLIP = ("mpjpe", "chamfer_icp", "f10_icp")
_HOLD = ("mpjpe", "chamfer_icp", "f10_icp", "chamfer_hand")

TABLES = {
    "ho3d": Anchors(
        "HO3D-v3, 18 sequences",
        "AGILE's; success = share of sequences with a result; hours for 200 frames, preprocessing "
        "included",
        "4D-HOF (2026), tables 1 to 3; rows of HOLD, MagicHOI and AGILE as on AGILE's page",
        {
            "HOLD": _row(22.09, 1.11, 81.8, 92.4, 18.66, 18.8, 89.5, 10.43, 100, 25, names=_ALL),
            "MagicHOI": _row(7.38, 0.90, 76.7, 91.6, 21.81, 17.4, 83.0, 21.66, 83, 2.4, names=_ALL),
            "CHOIR": _row(21.12, 0.84, 63.9, 90.3, 42.37, 22.9, 91.0, 0.92, 94, 0.5, names=_ALL),
            "AGILE": _row(3.92, 0.27, 86.6, 97.8, 15.81, None, None, None, 100, 2.2, names=_ALL),
            "4D-HOF": _row(4.40, 0.28, 89.1, 97.1, 5.98, 13.4, 97.3, 1.61, 100, 0.4, names=_ALL),
        },
    ),
    "ho3d_clips": Anchors(
        "HO3D-v3, short clips",
        "MagicHOI's",
        "4D-HOF (2026), table S1",
        {
            "DiffHOI": _row(16.0, 2.30, 64.5, names=_CLIP),
            "EasyHOI": _row(16.7, 1.86, 70.9, names=_CLIP),
            "HOLD": _row(30.8, 1.31, 80.2, names=_CLIP),
            "MagicHOI": _row(4.62, 0.87, 92.2, names=_CLIP),
            "CHOIR": _row(5.55, 0.77, 96.0, names=_CLIP),
            "4D-HOF": _row(4.60, 0.24, 98.1, names=_CLIP),
        },
    ),
    "hold": Anchors(
        "HO3D, 18 sequences, right hand",
        "HOLD's: mesh vertices, ICP with scale on the first frame; CD_h per frame",
        "HOLD, CVPR 2024, from memory: check before citing",
        {
            "iHOI": _row(38.4, 3.8, 75.8, 41.7, names=_HOLD),
            "DiffHOI": _row(32.3, 4.3, 68.8, 43.8, names=_HOLD),
            "HOLD": _row(24.2, 0.4, 96.5, 11.3, names=_HOLD),
        },
    ),
}
# Which published protocol is nearest to one of ours.
NEAREST = {"surface": "ho3d", "vertices": "hold"}


def table(figures: Mapping[str, float], protocol: str, ours: str, name: str | None = None) -> str:
    """Lines of text: one's own figures above those of a published table.

    Args:
      figures: of `metrics.scores`.
      protocol: its protocol, one of `metrics.scores.PROTOCOLS`.
      ours: what was measured, such as the name of the sequence.
      name: of `TABLES`; None: the nearest one to the protocol.

    Raises:
      ConfigError: there is no such table.
    """
    from hand_object.metrics.scores import PROTOCOLS

    anchors = _anchors(protocol, name)
    cells = _cells(figures, anchors)
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines = [
        "  ".join(cell.ljust(w) if not k else cell.rjust(w)
                  for k, (cell, w) in enumerate(zip(row, widths))).rstrip()
        for row in cells
    ]  # fmt: skip
    said = [
        f"this run: {ours}; protocol {protocol}: {PROTOCOLS[protocol]}",
        f"the others: {anchors.title}; protocol {anchors.protocol} ({anchors.source})",
    ]
    return "\n".join([*said, *lines])


def report_table(figures: Mapping[str, float], protocol: str, ours: str) -> Table:
    """The same as `table`, with the nearest published protocol, for a report."""
    anchors = _anchors(protocol, None)
    heading, *rows = _cells(figures, anchors)
    title = (
        f"{ours}, protocol {protocol}, beside {anchors.title}, protocol {anchors.protocol} "
        f"({anchors.source})"
    )
    return Table(title, ("method", *heading[1:]), [tuple(row) for row in rows])


def _anchors(protocol: str, name: str | None) -> Anchors:
    name = NEAREST.get(protocol, "") if name is None else name
    if name not in TABLES:
        raise ConfigError(f"there is no table {name!r} of anchors; use {', '.join(TABLES)}")
    return TABLES[name]


def _cells(figures: Mapping[str, float], anchors: Anchors) -> list[list[str]]:
    """Headings, then a row for this run and each published method."""
    named = [c for c in COLUMNS if c in figures or any(c in row for row in anchors.rows.values())]
    rows = {"this run": figures, **anchors.rows}
    cells = [["", *(COLUMNS[column] for column in named)]]
    return cells + [[method, *(_shown(row.get(c)) for c in named)] for method, row in rows.items()]


def _shown(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"

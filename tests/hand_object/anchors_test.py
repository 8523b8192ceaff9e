"""Tables name both protocols and keep the figures of each method under its own heading."""

from __future__ import annotations

import pytest

from hand_object.anchors import TABLES, table
from training.errors import ConfigError

FIGURES = {"mpjpe": 12.345, "chamfer_icp": 0.5, "f10_icp": 91.0, "chamfer_hand": float("nan")}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_names_its_protocols_and_shows_every_method(name):
    lines = table(FIGURES, "surface", "bottle", name).splitlines()
    assert "bottle" in lines[0] and "evenly by area" in lines[0]
    assert TABLES[name].protocol in lines[1]
    assert [line.split()[0] for line in lines[3:]] == ["this", *TABLES[name].rows]


def test_figures_stand_under_their_headings():
    lines = table(FIGURES, "surface", "bottle", "ho3d").splitlines()
    heading, own = lines[2], lines[3]
    at = heading.index("MPJPE mm") + len("MPJPE mm")
    assert own[:at].endswith("12.35") or own[:at].endswith("12.34")
    agile = next(line for line in lines if line.startswith("AGILE"))
    assert agile[:at].endswith(" 3.92")
    volume = heading.index("IV cm3") + len("IV cm3")
    assert agile[:volume].endswith(" -")
    assert own[: heading.index("CD_h cm2") + len("CD_h cm2")].endswith(" -")


def test_the_nearest_table_is_chosen_by_the_protocol():
    assert "HOLD's" in table(FIGURES, "vertices", "bottle")
    assert "AGILE's" in table(FIGURES, "surface", "bottle")
    with pytest.raises(ConfigError, match="ho3d_clips"):
        table(FIGURES, "surface", "bottle", "dexycb")

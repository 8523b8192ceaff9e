"""Every guard has its paragraph: what it looked like, what it was, how to read its sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.guards.book import GUARDS as CORE
from training.registry import installed, system_module

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "failures.md").read_text(encoding="utf-8")
OWN = [name for system in installed() for name in system_module(system, "guards").NAMES]
GUARDS = (*CORE, *OWN)
PARAGRAPHS = dict(re.findall(r"^### (\S+)\n\n(.+?)(?=\n#|\Z)", TEXT, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("guard", GUARDS)
def test_the_paragraph_answers_the_five_questions(guard):
    for label in ("Looked like:", "Was:", "Now:", "Sentence:", "Off:"):
        assert f"**{label}**" in PARAGRAPHS[guard], label


def test_links_lead_to_paragraphs_and_every_guard_is_in_the_table():
    links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert links == set(GUARDS) == PARAGRAPHS.keys()


# Numbers of the design's table of original failures: those of all systems, jepa3d, splats, rtdetr.
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 21, 22, 23)


@pytest.mark.parametrize("row", ROWS)
def test_every_original_failure_has_a_test_that_injects_it(row):
    folder = Path(__file__).resolve().parents[1] / "failures"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*_test.py"))
    assert f"def test_{row}_" in text

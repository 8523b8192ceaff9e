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


# Numbers of the design's table of original failures that are injected.
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23)


@pytest.mark.parametrize("row", ROWS)
def test_every_original_failure_has_a_test_that_injects_it(row):
    folder = Path(__file__).resolve().parents[1] / "failures"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*_test.py"))
    assert f"def test_{row}_" in text


def test_failures_of_other_detectors_are_listed_with_tests_that_exist():
    tests = Path(__file__).resolve().parents[1]
    places = dict(re.findall(r"(FIELD|SCORES|EXPORT)\s+(?:is )?`(\w+\.py)`", TEXT))
    places = {short: tests / "failures" / name for short, name in places.items()}
    rows = re.findall(r"^\| (\d+) \|.+\| (.+) \|$", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 16))
    for number, said in rows:
        named = re.findall(r"`(\w+(?:/\w+)*\.py)`", said)
        assert all((tests / name).is_file() for name in named), number
        short = re.match(r"FIELD|SCORES|EXPORT", said)
        wanted = re.search(r"`(test_field_\d+_)…`", said)
        if short:
            text = places[short[0]].read_text(encoding="utf-8")
            assert (wanted[1] if wanted else f"failure {number}:") in text, number
        assert short or named, f"{number} has no test"

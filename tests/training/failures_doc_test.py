"""Every guard has its paragraph: what it looked like, what it was, how to read its sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.guards import GUARDS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "failures.md").read_text(encoding="utf-8")
PARAGRAPHS = dict(re.findall(r"^### (\S+)\n\n(.+?)(?=\n#|\Z)", TEXT, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("guard", GUARDS)
def test_the_paragraph_answers_the_five_questions(guard):
    for label in ("Looked like:", "Was:", "Now:", "Sentence:", "Off:"):
        assert f"**{label}**" in PARAGRAPHS[guard], label


def test_links_lead_to_paragraphs_and_every_guard_is_in_the_table():
    links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert links == set(GUARDS) == PARAGRAPHS.keys()

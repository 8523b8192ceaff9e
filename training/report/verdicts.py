"""The verdicts of the guards: what failed in full, what passed by name, what never ran."""

from __future__ import annotations

import html
from typing import Any

from training.report.read import RunRecord
from training.report.tables import table_html

SYMBOLS = {"failed": ("no", "✕"), "never ran": ("never", "–"), "passed": ("yes", "✓")}


def section(run: RunRecord) -> str:
    """Failures in full, the names of the others, and every sentence in a folded table."""
    if run.guards is None:
        return '<p class="soft">No guards.json was written: no guard has reported yet.</p>'
    ordered = sorted(run.guards, key=lambda guard: list(SYMBOLS).index(outcome(guard)))
    failed = [guard for guard in ordered if outcome(guard) == "failed"]
    chips = "".join(f"<span>{_symbol_and_name(guard)}</span>" for guard in ordered)
    rows = []
    for guard in ordered:
        never = "Never ran. " if outcome(guard) == "never ran" else ""
        texts = (never + str(guard.get("sentence", "")), _when(guard), _checked(guard))
        rows.append([_symbol_and_name(guard), *(html.escape(text) for text in texts)])
    table = table_html(["Guard", "Verdict", "When", "Checks"], rows, {3}, {0, 2})
    return (
        f"<p>{html.escape(summary(run))}</p>{''.join(map(_failure, failed))}"
        f'<div class="chips">{chips}</div>'
        f"<details><summary>What each guard found</summary>{table}</details>"
    )


def _failure(guard: dict[str, Any]) -> str:
    name, sentence = html.escape(str(guard.get("name"))), html.escape(str(guard.get("sentence")))
    place = f"{html.escape(_when(guard))} · docs/failures.md#{name}"
    return f'<div class="fail"><b class="no">{name}</b> {sentence} <small>{place}</small></div>'


def _symbol_and_name(guard: dict[str, Any]) -> str:
    kind, symbol = SYMBOLS[outcome(guard)]
    return f'<span class="{kind}">{symbol}</span> {html.escape(str(guard.get("name")))}'


def outcome(guard: dict[str, Any]) -> str:
    """`passed`, `failed` or `never ran` (no verdict, or checked zero times)."""
    if guard.get("passed") is None or guard.get("checked", 1) in (0, False, None):
        return "never ran"
    return "passed" if guard["passed"] else "failed"


def summary(run: RunRecord) -> str:
    """One sentence on all guards."""
    outcomes = [outcome(guard) for guard in run.guards or []]
    failed, never = outcomes.count("failed"), outcomes.count("never ran")
    ran = len(outcomes) - never
    if failed:
        text = f"{failed} of {ran} guards that ran failed"
    else:
        text = f"All {ran} guards that ran passed" if ran else "No guard has run"
    return f"{text}, {never} never ran." if never and ran else f"{text}."


def _when(guard: dict[str, Any]) -> str:
    when = guard.get("when")
    return f"step {when:,}" if isinstance(when, int) else str(when if when is not None else "")


def _checked(guard: dict[str, Any]) -> str:
    checked = guard.get("checked", "")
    return f"{checked:,}" if isinstance(checked, int) and not isinstance(checked, bool) else ""

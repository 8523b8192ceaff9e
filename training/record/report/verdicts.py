"""The verdicts of the guards: what failed in full, what passed by name, what never ran."""

from __future__ import annotations

import html
from typing import Any

from training.record.report.read import RunRecord
from training.record.report.tables import table_html

# Outcome -> class and symbol, in the order of the page.
SYMBOLS = {
    "failed": ("no", "✕"),
    "warned": ("never", "!"),
    "never ran": ("never", "–"),
    "passed": ("yes", "✓"),
}


def section(run: RunRecord) -> str:
    """Failures and warnings in full, the names of the others, every sentence in a folded table."""
    if run.guards is None:
        return '<p class="soft">No guards.json was written: no guard has reported yet.</p>'
    ordered = sorted(run.guards, key=lambda guard: list(SYMBOLS).index(outcome(guard)))
    loud = [guard for guard in ordered if outcome(guard) in ("failed", "warned")]
    chips = "".join(f"<span>{_symbol_and_name(guard)}</span>" for guard in ordered)
    rows = []
    for guard in ordered:
        texts = (_sentence(guard), _when(guard), _checked(guard))
        rows.append([_symbol_and_name(guard), *(html.escape(text) for text in texts)])
    table = table_html(["Guard", "Verdict", "When", "Checks"], rows, {3}, {0, 2})
    return (
        f"<p>{html.escape(summary(run))}</p>{''.join(map(_box, loud))}"
        f'<div class="chips">{chips}</div>'
        f"<details><summary>What each guard found</summary>{table}</details>"
    )


def _box(guard: dict[str, Any]) -> str:
    name, sentence = html.escape(str(guard.get("name"))), html.escape(_sentence(guard))
    place = f"{html.escape(_when(guard))} · docs/failures.md#{name}"
    box, kind = ("fail", "no") if outcome(guard) == "failed" else ("fail warned", "never")
    return (
        f'<div class="{box}"><b class="{kind}">{name}</b> {sentence} <small>{place}</small></div>'
    )


def _sentence(guard: dict[str, Any]) -> str:
    """As a sentence; a guard that has not looked yet may not show its promise as a finding."""
    text = str(guard.get("sentence") or "").strip()
    if outcome(guard) == "never ran":
        return f"Never ran. {text if guard.get('passed') is None else ''}".strip()
    return text[:1].upper() + text[1:].rstrip(".") + "." * bool(text)


def _symbol_and_name(guard: dict[str, Any]) -> str:
    kind, symbol = SYMBOLS[outcome(guard)]
    return f'<span class="{kind}">{symbol}</span> {html.escape(str(guard.get("name")))}'


def outcome(guard: dict[str, Any]) -> str:
    """`passed`, `warned` (the run went on), `failed`, or `never ran` (checked zero times)."""
    # A guard that is only declared stands in the book as passed, with no checks.
    if guard.get("passed") is None or guard.get("checked", 1) in (0, False, None):
        return "never ran"
    if guard["passed"]:
        return "passed"
    return "warned" if guard.get("warning") else "failed"


def summary(run: RunRecord) -> str:
    """One sentence on all guards."""
    outcomes = [outcome(guard) for guard in run.guards or []]
    never = outcomes.count("never ran")
    ran = len(outcomes) - never
    loud = [f"{n} {kind}" for kind in ("failed", "warned") if (n := outcomes.count(kind))]
    if loud:
        text = f"Of {ran} guards that ran {' and '.join(loud)}"
    else:
        text = f"All {ran} guards that ran passed" if ran else "No guard has run"
    return f"{text}, {never} never ran." if never and ran else f"{text}."


def _when(guard: dict[str, Any]) -> str:
    when = guard.get("when")
    return f"step {when:,}" if isinstance(when, int) else str(when if when is not None else "")


def _checked(guard: dict[str, Any]) -> str:
    checked = guard.get("checked", "")
    return f"{checked:,}" if isinstance(checked, int) and not isinstance(checked, bool) else ""

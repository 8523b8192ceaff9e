"""The guard book: which guard ran, passed or failed, for `guards.json` and the report.

A guard has a name, a sentence, a paragraph in docs/failures.md and an off switch
(`config.guards.off`). `training.guards.start` has those before the first update (exit code 2 or 3),
`training.guards.watch` those that look at every update.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from training.config import GuardConfig
from training.errors import ConfigError, GuardStop
from training.storage import PathLike, as_path, replace_text
from training.typed import suggestion
from training.verdict import Verdict

# Every guard of the core; a system adds its own (`capabilities.Guards.names`). docs/failures.md has
# a paragraph on each.
GUARDS = (
    "grad-norm",
    "schedule",
    "learning-rate-rose",
    "nonfinite",
    "consecutive-skips",
    "zero-gradient",
    "constant-term",
    "loss-spike",
    "share-cap",
    "hang",
    "batch-arithmetic",
    "phase-window",
    "batch-keys",
    "optimizer-groups",
    "split-overlap",
    "checkpoint-diff",
    "unread-config",
    "unique-ids",
    "data-replaced",
    "ema-moved",
    "overfit",
    "overflow",
)
START, STEP, LOG, EVALUATION = "start", "every step", "log steps", "evaluation"


class GuardBook:
    """Collects verdicts for `guards.json` and stops the run at the first that failed."""

    def __init__(self, config: GuardConfig, own: Sequence[str] = ()):
        """Args: config: switches; own: names of the system's guards."""
        known = (*GUARDS, *own)
        for name in config.off:
            if name not in known:
                raise ConfigError(
                    f"config.guards.off names {name!r}, which is no guard{suggestion(name, known)}"
                )
        self.off = frozenset(config.off)
        self.rows: dict[str, dict[str, Any]] = {}

    def record(self, verdict: Verdict, when: str) -> bool:
        """Notes a verdict; returns whether the run has to stop because of it."""
        switched_off = verdict.name in self.off
        row = self.rows.setdefault(
            verdict.name, {"name": verdict.name, "when": when, "checked": 0, "passed": True}
        )
        row["checked"] += 1
        stops = not verdict.passed and not verdict.warning and not switched_off
        # The first finding stays, unless a warning was followed by a stop.
        if row["passed"] or (stops and row.pop("warning", False)):
            note = "switched off by config.guards.off; " if switched_off else ""
            row |= {"passed": verdict.passed, "sentence": note + verdict.sentence}
            if not verdict.passed and not stops:
                row["warning"] = True
        return stops

    def require(self, verdict: Verdict, when: str) -> None:
        """Raises GuardStop where the verdict stops the run."""
        if self.record(verdict, when):
            raise GuardStop(verdict.name, verdict.sentence)

    def declare(self, name: str, when: str, sentence: str) -> None:
        """Lists a guard that is active and has had nothing to look at yet."""
        self.rows.setdefault(
            name,
            {"name": name, "when": when, "checked": 0, "passed": True, "sentence": sentence},
        )

    def count(self, name: str, looks: int) -> None:
        """Notes that a declared guard has looked so many times and found nothing."""
        self.rows[name]["checked"] += looks

    def write(self, workdir: PathLike) -> None:
        """Writes `guards.json`."""
        content = json.dumps(list(self.rows.values()), indent=1)
        replace_text(as_path(workdir) / "guards.json", content)

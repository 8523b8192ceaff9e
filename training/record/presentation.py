"""How a run's metrics are named and told: what is common here, the rest from its system.

A system says its part in `<system>/presentation.py`, which imports nothing heavy. All of it may be
left out: `TITLES` (the last part of a metric's name -> title and unit), `SPELLINGS` (word of a
metric's name -> how it is written), `OPTIMIZATION` (training metrics whose charts stand with those
of the optimizer), `HEADLINE` (the evaluation metrics that the terminal shows; all where it is left
out), `subject(config)` (what the run is about, for the head of the report: the name of a scene) and
`progress_lines(metrics)` (lines below a logged step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from training.registry import system_module, systems_with

Title = tuple[str, str]  # and the unit, or nothing

COMMON_TITLES: dict[str, Title] = {
    "learning_rate": ("Learning rate", "per update"),
    "grad_norm": ("Gradient norm", "before clipping"),
    "clip_scale": ("Clip scale", "1 = not clipped"),
    "update_norm": ("Update norm", ""),
    "param_norm": ("Parameter norm", ""),
    "ema_decay": ("EMA decay", "per update"),
    "examples_per_second": ("Throughput", "examples/s"),
    "data_wait_fraction": ("Waiting for data", "share of the step"),
    "mfu": ("Model FLOPs utilization", "share of peak"),
}


def no_lines(metrics: Mapping[str, float]) -> list[str]:
    """A system that shows nothing of its own."""
    del metrics
    return []


def no_subject(config: Mapping[str, Any]) -> str:
    """A system whose runs are known by their names."""
    del config
    return ""


@dataclass(frozen=True)
class Presentation:
    """Titles and spellings by name, and what the terminal shows."""

    titles: Mapping[str, Title] = field(default_factory=lambda: COMMON_TITLES)
    spellings: Mapping[str, str] = field(default_factory=dict)
    optimization: tuple[str, ...] = ()
    headline: tuple[str, ...] = ()
    progress_lines: Callable[[Mapping[str, float]], list[str]] = no_lines
    subject: Callable[[Mapping[str, Any]], str] = no_subject

    def title(self, name: str) -> Title:
        """Title and unit from the last part of a metric's name."""
        last = name.split("/")[-1]
        if last in self.titles:
            return self.titles[last]
        words = [self.spellings.get(word, word) for word in last.split("_")]
        # A spelling has its own capitals, and so has a name such as AP50.
        if words[0] not in self.spellings.values() and words[0].islower():
            words[0] = words[0].capitalize()
        return " ".join(words), ""


def presentation_of(system: Any) -> Presentation:
    """The common titles and what the system adds; the common ones alone for an unknown name."""
    if system not in systems_with("presentation"):
        return Presentation()
    module = system_module(system, "presentation")
    return Presentation(
        COMMON_TITLES | getattr(module, "TITLES", {}),
        getattr(module, "SPELLINGS", {}),
        getattr(module, "OPTIMIZATION", ()),
        getattr(module, "HEADLINE", ()),
        getattr(module, "progress_lines", no_lines),
        getattr(module, "subject", no_subject),
    )

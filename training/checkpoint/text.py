"""Turns a long list of findings about single arrays into the few lines that a person reads.

Vocabulary: a *subtree* is the largest part of a state that one side lacks as a whole and to which
the array belongs; a *part* is one component of a path, its *stem* and *number* are `layer_` and
`3` in `layer_3`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

# In the order of the lines.
KINDS = ("shape", "dtype", "missing", "extra")
SHOWN_CONFIG_CHANGES = 5


@dataclass(frozen=True)
class Finding:
    """One array that cannot be restored as it is.

    Attributes:
      kind: one of KINDS; "missing" from the checkpoint, "extra" in the checkpoint.
      path: path of the array.
      saved: its `LeafSpec` in the checkpoint, or None.
      model: its `LeafSpec` in the model, or None.
      subtree: for missing and extra, the shortest prefix that the other side lacks.
    """

    kind: str
    path: str
    saved: Any  # no type: `LeafSpec` is in `diff`, which imports this file
    model: Any
    subtree: str = ""


@dataclass(frozen=True)
class _Line:
    """A group of findings. A part is `(stem, numbers)`; no numbers for a plain name."""

    kind: str
    parts: tuple[tuple[str, frozenset[str]], ...]
    saved: str
    model: str
    count: int = 1

    def columns(self) -> tuple[str, str, str, str, str]:
        path = "/".join(stem + _number_text(numbers) for stem, numbers in self.parts)
        return (self.kind, path, self.saved, self.model, _count_text(self.count))


def grouped_lines(findings: Sequence[Finding]) -> list[str]:
    """Aligned lines: kind, path, saved, model, number of arrays."""
    rows: list[tuple[str, ...]] = []
    for kind in KINDS:
        lines = _roll_up([finding for finding in findings if finding.kind == kind])
        own, repeated = _split_repeated(lines)
        rows += [line.columns() for line in _merge_numbers(own)]
        rows += _folded_rows(kind, repeated)
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(5)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]


def config_line(changes: Sequence[tuple[str, Any, Any]]) -> str:
    """The first differences of the config on one line."""
    shown = [f"{key} {old} -> {new}" for key, old, new in changes[:SHOWN_CONFIG_CHANGES]]
    rest = len(changes) - len(shown)
    return "first config differences:  " + "   ".join(
        shown + ([f"and {rest} more"] if rest else [])
    )


def _roll_up(findings: Sequence[Finding]) -> list[_Line]:
    """One line per array, or per subtree with several arrays that one side lacks as a whole."""
    members: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        members[finding.subtree or finding.path].append(finding)
    lines = []
    for subtree, group in members.items():
        if len(group) == 1:
            lines.append(_single(group[0]))
        else:
            saved = "saved only" if group[0].kind == "extra" else ""
            model = "model only" if group[0].kind == "missing" else ""
            parts = _parts(f"{subtree}/**")
            lines.append(_Line(group[0].kind, parts, saved, model, len(group)))
    return lines


def _single(finding: Finding) -> _Line:
    saved, model = finding.saved, finding.model
    with_dtype = saved is not None and model is not None and saved.dtype != model.dtype

    def text(side: str, spec: Any) -> str:
        if spec is None:
            return ""
        if finding.kind == "dtype":
            return f"{side} {spec.dtype}"
        return f"{side} {spec.shape} {spec.dtype}" if with_dtype else f"{side} {spec.shape}"

    return _Line(finding.kind, _parts(finding.path), text("saved", saved), text("model", model))


def _parts(path: str) -> tuple[tuple[str, frozenset[str]], ...]:
    # Only a number at the end counts: `layer_3` is one of many, `conv2d` is not.
    matches = [re.fullmatch(r"(.*?)(\d+)", part) or part for part in path.split("/")]
    return tuple(
        (match, frozenset()) if isinstance(match, str) else (match[1], frozenset([match[2]]))
        for match in matches
    )


def _split_repeated(lines: Sequence[_Line]) -> tuple[list[_Line], list[tuple[tuple, _Line]]]:
    """Separates lines that say of a moment or an average what is said of its parameter.

    Returns:
      The other lines, and `(prefix parts, line)` for each repetition: `opt_state/0/mu`.
    """
    params = {replace(line, parts=line.parts[1:]) for line in lines if line.parts[0][0] == "params"}
    own, repeated = [], []
    for line in lines:
        # No suffix at all for a parameter: it is what the others repeat.
        suffixes = range(1, 0 if line.parts[0][0] == "params" else len(line.parts))
        cut = next((i for i in suffixes if replace(line, parts=line.parts[i:]) in params), None)
        if cut is None:
            own.append(line)
        else:
            repeated.append((line.parts[:cut], line))
    return own, repeated


def _merge_numbers(lines: Iterable[_Line]) -> list[_Line]:
    """Joins lines that are equal but for the number in one part, one part after the other."""
    merged = list(lines)
    for position in range(max((len(line.parts) for line in merged), default=0)):
        groups: dict[Any, _Line] = {}
        for line in merged:
            if position >= len(line.parts):
                groups[line] = line
                continue
            stem, numbers = line.parts[position]
            # `bool(numbers)` keeps `block` and `block3` apart.
            blank = (*line.parts[:position], (stem, bool(numbers)), *line.parts[position + 1 :])
            key = (line.kind, blank, line.saved, line.model)
            if key in groups:
                first = groups[key]
                joined = (stem, first.parts[position][1] | numbers)
                parts = (*line.parts[:position], joined, *line.parts[position + 1 :])
                groups[key] = replace(first, parts=parts, count=first.count + line.count)
            else:
                groups[key] = line
        merged = list(groups.values())
    return merged


def _folded_rows(kind: str, repeated: Sequence[tuple[tuple, _Line]]) -> list[tuple[str, ...]]:
    """One row for each top-level name: `opt_state/.../mu, .../nu  same as above  16 arrays`."""
    ends: dict[str, dict[str, None]] = defaultdict(dict)  # an inner dict is an ordered set
    counts: dict[str, int] = defaultdict(int)
    for prefix, line in repeated:
        names = [stem + "".join(numbers) for stem, numbers in prefix]
        counts[names[0]] += line.count
        if len(names) > 1:
            ends[names[0]][names[-1]] = None
    return [
        (kind, _folded_path(root, list(ends[root])), "same as above", "", _count_text(count))
        for root, count in counts.items()
    ]


def _folded_path(root: str, ends: Sequence[str]) -> str:
    return ", ".join(
        [f"{root}/.../{ends[0]}", *(f".../{end}" for end in ends[1:])] if ends else [root]
    )


def _number_text(numbers: frozenset[str]) -> str:
    """`3` for one number, `{0..3}` for a run, `{0,2,5}` otherwise."""
    ordered = sorted(numbers, key=lambda text: (int(text), text))
    if len(ordered) < 2:
        return "".join(ordered)
    run = [str(number) for number in range(int(ordered[0]), int(ordered[-1]) + 1)]
    return f"{{{ordered[0]}..{ordered[-1]}}}" if ordered == run else f"{{{','.join(ordered)}}}"


def _count_text(count: int) -> str:
    return f"{count} array" if count == 1 else f"{count} arrays"

"""The text of a compiled module: its computations, and how often each instruction runs.

*Executed* instructions are those reached from the entry: bodies of loops as often as their trip
count, calls once, of a conditional every branch (an upper bound).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Computations = Mapping[str, list[str]]


@dataclass(frozen=True)
class Module:
    """A compiled module: instructions of each computation, and the name of the first to run."""

    computations: Computations
    entry: str


def read_module(text: str) -> Module:
    """Instructions, one a string however many lines each has."""
    computations: dict[str, list[str]] = {}
    entry = current = ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            current = head[2]
            entry = current if head[1] else entry
            computations[current] = []
        elif re.match(r"\s+(ROOT )?%?[\w.\-]+ = ", line):
            computations[current].append(line)
        elif current and computations[current]:  # long instructions go over several lines
            computations[current][-1] += line
    return Module(computations, entry)


def trip_count(computations: Computations, instruction: str, condition: str) -> int:
    """How often the body of a loop runs; 1 where neither annotation nor condition says it."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction)
    if known:
        return int(known[1])
    # The condition compares the counter with a constant, often inside of a fusion.
    lines = list(computations[condition])
    for called in re.findall(r"calls=%?([\w.\-]+)", "".join(lines)):
        lines += computations.get(called, [])
    bounds = re.findall(r"s32\[\]\S* constant\((\d+)\)", "".join(lines))
    return max(map(int, bounds), default=1)


def executed(
    module: Module, name: str = "", times: int = 1, fusions: bool = False
) -> Iterator[tuple[int, str]]:
    """Every instruction that runs, with the number of times.

    Args:
      name: the computation to begin with; empty for the entry.
      fusions: whether to look into fusions and wrapped asynchronous operations, too.
    """
    computations = module.computations
    for instruction in computations[name or module.entry]:
        yield times, instruction
        loop = re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", instruction)
        if loop:
            count = trip_count(computations, instruction, loop[1])
            yield from executed(module, loop[2], times * count, fusions)
            continue
        for callee in _callees(instruction, fusions):
            if callee in computations:
                yield from executed(module, callee, times, fusions)


def _callees(instruction: str, fusions: bool) -> list[str]:
    if " call(" in instruction:
        return re.findall(r"to_apply=%?([\w.\-]+)", instruction)
    if " conditional(" in instruction:
        branches = re.search(r"branch_computations=\{([^}]*)\}", instruction)
        named = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", instruction)
        return named + (re.findall(r"%?([\w.\-]+)", branches[1]) if branches else [])
    if fusions and re.search(r" (fusion|async-start)\(", instruction):
        return re.findall(r"calls=%?([\w.\-]+)", instruction)
    return []

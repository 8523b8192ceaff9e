"""Traffic between chips: each collective of a compiled module, how often it runs, and its bytes.

An asynchronous collective is a pair of start and done, counted at its start. *Bytes* are those that
one device sends, at least, in one run of the program: with n devices in a group and S bytes of the
result, an all-reduce sends 2 S (n - 1) / n, an all-gather and an all-to-all S (n - 1) / n, a
reduce-scatter S (n - 1), a permutation S.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from launch.preflight.hlo import Module, executed

NAMES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
CALL = re.compile(rf" ({'|'.join(NAMES)})(-start)?\(")
SHAPE = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")


@dataclass
class Traffic:
    """All collectives of one kind.

    Attributes:
      instructions: in the text, with how often that they run not counted.
      runs: how often they run altogether.
      asynchronous: how many of the instructions are pairs of start and done.
      bytes: sent by one device.
    """

    instructions: int = 0
    runs: int = 0
    asynchronous: int = 0
    bytes: float = 0.0


def read_traffic(module: Module, devices: int) -> dict[str, Traffic]:
    """Kind of collective -> its traffic, for one run of the module on so many devices."""
    found: dict[str, Traffic] = {}
    for times, instruction in executed(module, fusions=True):
        call = CALL.search(instruction)
        if call is None:
            continue
        traffic = found.setdefault(call[1], Traffic())
        traffic.instructions += 1
        traffic.runs += times
        traffic.asynchronous += bool(call[2])
        size = result_bytes(instruction, call)
        traffic.bytes += times * size * share_sent(call[1], group_size(instruction, devices))
    return found


def as_json(traffic: dict[str, Traffic]) -> dict[str, dict[str, Any]]:
    """Plain values, sorted by name."""
    return {name: asdict(traffic[name]) for name in sorted(traffic)}


def share_sent(name: str, group: int) -> float:
    """Bytes that a device sends for each byte of the result."""
    if name == "collective-permute":
        return 1.0
    if name == "reduce-scatter":
        return group - 1.0
    return (2.0 if name == "all-reduce" else 1.0) * (group - 1) / group


def result_bytes(instruction: str, call: re.Match) -> int:
    """Bytes of the result on one device, of a tuple those of all its parts."""
    result = instruction[: call.start()].partition(" = ")[2]
    if call[2] and call[1] != "all-reduce":
        # A start has (operands, results, contexts); its operands are in place and do not count.
        parts = _top_level(result.strip()[1:-1])
        result = parts[1] if len(parts) > 1 else result
    return sum(_bytes(kind, sizes) for kind, sizes in SHAPE.findall(result))


def group_size(instruction: str, devices: int) -> int:
    """Devices that take part together, in any of the forms of `replica_groups`."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", instruction)
    if listed:
        return len(listed[1].split(","))
    counted = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", instruction)
    if counted:
        return int(counted[2])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{([^}]*)\}", instruction)
    if mesh:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", mesh[2]))
    return devices


def _bytes(kind: str, sizes: str) -> int:
    # Of narrow types several share a byte; a pred has one.
    bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])  # pyright: ignore
    count = math.prod(int(size) for size in sizes.split(",") if size)
    return math.ceil(count * bits / 8)


def _top_level(text: str) -> list[str]:
    """The parts of a tuple's text, split at the commas outside of all brackets."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]

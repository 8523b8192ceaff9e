"""Text of programs that libtpu compiled; README.md says which."""

from __future__ import annotations

from pathlib import Path

from launch.preflight.hlo import Module, read_module

FOLDER = Path(__file__).parent
# `optimal_seconds` of the first: two ConcatBitcast calls took a second each.
SCAN_OPTIMAL_SECONDS = -1.999849796295166


def recorded(name: str) -> Module:
    """`scan_fsdp` or `ring`."""
    return read_module((FOLDER / f"{name}.hlo").read_text(encoding="utf-8"))

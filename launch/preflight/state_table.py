"""Every array of the train state: shape, how it lies on the mesh, and what a device holds of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launch.preflight.abstract import leaf_bytes
from launch.preflight.rows import PASS, Row
from training.paths import named_leaves
from training.program import Program

SHOWN = 5
GIB = 2**30


def state_rows(program: Program) -> list[dict[str, Any]]:
    """One entry for each array of the state, largest share of a device first.

    Returns:
      `path`, `shape`, `dtype`, `spec` (mesh axes, or "replicated"), `bytes`, `bytes_per_device`.
    """
    rows = []
    for path, leaf in named_leaves(program.abstract_state).items():
        size = leaf_bytes(leaf)
        parts = leaf.sharding.shard_shape(leaf.shape) if leaf.shape else leaf.shape
        whole, part = 1, 1
        for dimension, piece in zip(leaf.shape, parts):
            whole, part = whole * dimension, part * piece
        axes = [axis for axis in leaf.sharding.spec if axis is not None]
        rows.append(
            {
                "path": path,
                "shape": list(leaf.shape),
                "dtype": str(leaf.dtype),
                "spec": str(tuple(leaf.sharding.spec)) if axes else "replicated",
                "bytes": size,
                "bytes_per_device": size * part // whole if whole else 0,
            }
        )
    return sorted(rows, key=lambda row: -row["bytes_per_device"])


def part_totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Part of the state (params, opt_state, ema, ...) -> its bytes, and those of one device."""
    totals: dict[str, dict[str, int]] = {}
    for row in rows:
        part = totals.setdefault(row["path"].split("/")[0], {"bytes": 0, "bytes_per_device": 0})
        for name in part:
            part[name] += row[name]
    return totals


def state_row(rows: Sequence[Mapping[str, Any]]) -> Row:
    """The row of the table: totals, and the arrays that take most of a device."""
    totals = part_totals(rows)
    whole = sum(part["bytes"] for part in totals.values())
    held = sum(part["bytes_per_device"] for part in totals.values())
    sharded = sum(row["spec"] != "replicated" for row in rows)
    lines = [
        f"{name:<12} {part['bytes'] / GIB:8.3f} GiB, {part['bytes_per_device'] / GIB:8.3f} a device"
        for name, part in totals.items()
        if part["bytes"] >= 2**20
    ]
    lines += [
        f"{row['bytes_per_device'] / 2**20:8.2f} MiB a device  {row['path']} "
        f"{row['dtype']}{row['shape']} {row['spec']}"
        for row in rows[:SHOWN]
    ]
    sentence = (
        f"{len(rows)} arrays of {whole / GIB:.3f} GiB, {sharded} of them sharded; "
        f"a device holds {held / GIB:.3f} GiB"
    )
    facts = {"bytes": whole, "bytes_per_device": held, "parts": totals, "arrays": list(rows)}
    return Row("state", PASS, sentence, facts, tuple(lines))

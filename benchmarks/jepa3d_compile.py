"""The real update of a V-JEPA3D recipe, compiled for a TPU slice on a machine without a TPU.

Run: python benchmarks/jepa3d_compile.py [--remat none save_matmuls] [--json]
         [--config configs/jepa3d/v4_32.py] [config.field=value ...]

Needs libtpu (`pip install -e '.[tpu]'`). The compiling and reading are those of `podvision
preflight`, and so are the kept verdicts: what was compiled before is not compiled again. Printed:

  chip GiB     arguments + outputs - aliased + temporaries + code of one chip, as libtpu reports
               them; the usable memory of a v4 chip is 30.75 GiB
  peak GiB     libtpu's own simulated peak, which knows that temporaries do not all live at once
  flops, bytes libtpu's cost analysis of one chip: bodies of scans once, kernels not at all
  floor ms     libtpu's roofline for the same, repaired: each ConcatBitcast call enters as -1 s
  XLA ms       cycles that libtpu estimates for its own fusions, bodies times their scan lengths
  kernel ms    matmuls of the attention kernels at the chip's peak, heads padded to 128 lanes
  compile s    CPU seconds (all threads) of the compilation

The last three together bound the time of an update from below; none was measured on a TPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# This file has the name of a package's benchmark: look for packages one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from launch.preflight.compiler import HOW_TO_INSTALL, Request, ask, has_libtpu  # noqa: E402
from launch.preflight.figures import clock_hz  # noqa: E402
from launch.preflight.stand_in import StandIn  # noqa: E402
from training.record.progress import device_peak  # noqa: E402

REMAT = ("none", "save_matmuls", "save_attention", "block")
SLICE = "v4-32"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile a V-JEPA3D update for a TPU v4-32.")
    parser.add_argument("--config", default="configs/jepa3d/v4_32.py")
    parser.add_argument("--remat", nargs="+", choices=REMAT, help="default: the recipe's own")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, no table")
    parser.add_argument("overrides", nargs="*", help="such as model.predictor.depth=2")
    arguments = parser.parse_args()
    if not has_libtpu():
        print(HOW_TO_INSTALL, file=sys.stderr)
        return 2
    if not arguments.json:
        print(header("remat"))
    for name in arguments.remat or [None]:
        changed = [] if name is None else [f"model.remat={name}"]
        found = update_figures(arguments.config, [*changed, *arguments.overrides])
        print(json.dumps(found) if arguments.json else row(name or "own", found), flush=True)
    return 0


def update_figures(
    config: str, overrides: Sequence[str], stand_in: StandIn | None = None
) -> dict[str, Any]:
    """What the compiler says of one update, with its times in milliseconds."""
    found = ask(Request(config, tuple(overrides), "", SLICE, stand_in))
    del found["state"]
    if "refused" in found:
        return found
    kind = found["device_kind"]
    found["floor_ms"] = 1e3 * (found["floor_seconds"] or 0.0)
    found["xla_ms"] = 1e3 * found["cycles"] / (clock_hz(kind) or 1.0)
    found["kernel_ms"] = 1e3 * found["kernel_flops"] / (device_peak(kind) or 1.0)
    return found


COLUMNS = {
    "chip GiB": "{chip_gib:.2f}",
    "peak GiB": "{peak_gib:.2f}",
    "flops": "{flops:.3g}",
    "bytes": "{bytes:.3g}",
    "floor ms": "{floor_ms:.1f}",
    "XLA ms": "{xla_ms:.0f}",
    "kernel ms": "{kernel_ms:.0f}",
    "compile s": "{compile_seconds:.0f}",
}


def header(first: str) -> str:
    """The head of the table."""
    return f"| {first} | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|"


def row(name: str, figures: Mapping[str, Any]) -> str:
    """A row of the table; one cell with the compiler's sentence where it refused the program."""
    if "refused" in figures:
        return f"| {name} | {figures['refused']} |"
    return f"| {name} | " + " | ".join(text.format(**figures) for text in COLUMNS.values()) + " |"


if __name__ == "__main__":
    sys.exit(main())

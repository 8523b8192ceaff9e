"""The real update of a V-JEPA3D recipe, compiled for a TPU slice on a machine without a TPU.

Run: python benchmarks/jepa3d_compile.py [--remat none save_matmuls] [--json]
         [--config configs/jepa3d/v4_32.py] [config.field=value ...]

Needs libtpu (`pip install -e '.[tpu]'`). Every variant is compiled by a process of its own: libtpu
keeps memory, and one process's compile seconds can then be told from another's. What is printed:

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
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# This file has the name of a package's benchmark: look for packages one folder up.
sys.path[0] = str(ROOT)

REMAT = ("none", "save_matmuls", "save_attention", "block")
# Without these libtpu looks for the devices of this machine, and refuses a second process.
ISOLATED = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # what is measured is a compilation
}
V4_32: dict[str, Any] = dict(
    platform="tpu",
    topology_name="v4:2x2x4",
    chip_config_name="megacore",  # one device a chip; without it, two
    chips_per_host_bounds=(2, 2, 1),
    num_slices=1,
    wrap=(False, False, False),
)
CLOCK_HZ, PEAK_FLOPS = 1.05e9, 2.75e14  # of a v4 chip
LANES = 128
# Matmuls over the score matrix in each of splash's kernels.
KERNEL_MATMULS = {"fwd": 2, "dq": 3, "dkv": 4}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
GIB = 2**30


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile a V-JEPA3D update for a TPU v4-32.")
    parser.add_argument("--config", default="configs/jepa3d/v4_32.py")
    parser.add_argument("--remat", nargs="+", choices=REMAT, help="default: the recipe's own")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, no table")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="such as model.predictor.depth=2")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(compile_update(arguments.config, arguments.overrides)))
        return 0
    if importlib.util.find_spec("libtpu") is None:
        print("libtpu is not installed; run: pip install -e '.[tpu]'", file=sys.stderr)
        return 2
    variants = [[f"model.remat={name}"] for name in arguments.remat] if arguments.remat else [[]]
    if not arguments.json:
        print("| remat | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|")
    for variant in variants:
        figures = in_child(arguments.config, [*variant, *arguments.overrides])
        print(json.dumps(figures) if arguments.json else table_row(figures), flush=True)
    return 0


def in_child(config: str, overrides: list[str]) -> dict:
    """Figures of one variant, compiled by a process of its own."""
    command = [sys.executable, __file__, "--child", "--config", config, *overrides]
    environment = os.environ | ISOLATED
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


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


def table_row(figures: Mapping) -> str:
    """A row of the table; one cell with the compiler's sentence where it refused the program."""
    if "refused" in figures:
        return f"| {figures['remat']} | {figures['refused']} |"
    cells = [text.format(**figures) for text in COLUMNS.values()]
    return f"| {figures['remat']} | " + " | ".join(cells) + " |"


def compile_update(config_file: str, overrides: list[str]) -> dict:
    """Compiles one update for a v4-32 and reads what the compiler says of it."""
    import jax
    from jax.experimental import topologies

    from training.mesh import Layout, make_mesh
    from training.program import Program
    from training.registry import load_config, make_task

    config = load_config(config_file, overrides)
    devices = topologies.get_topology_desc(**V4_32).devices  # pyright: ignore
    program = Program(make_task(config), Layout(make_mesh(config.mesh, devices)))
    lowered = program.lower()
    figures: dict = {"remat": config.model.remat, "jax": jax.__version__}  # pyright: ignore
    before = cpu_seconds()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        sentence = re.search(r"Ran out of memory.*?\.(?=\s)", str(error), re.DOTALL)
        if sentence is None:
            raise
        return figures | {"refused": " ".join(sentence[0].split())}
    figures["compile_seconds"] = cpu_seconds() - before
    return figures | memory_figures(compiled) | cost_figures(compiled)


def cpu_seconds() -> float:
    """User and system seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_figures(compiled) -> dict:
    """GiB of one chip."""
    sizes = compiled.memory_analysis()
    gib = {
        name: getattr(sizes, f"{name}_size_in_bytes") / GIB
        for name in ("argument", "output", "alias", "temp", "generated_code")
    }
    total = sum(gib.values()) - 2 * gib["alias"]
    named = {f"{name}_gib": value for name, value in gib.items()}
    return named | {"chip_gib": total, "peak_gib": sizes.peak_memory_in_bytes / GIB}


def cost_figures(compiled) -> dict:
    """Operations, bytes and least times of one chip; see the docstring of this file."""
    cost, text = compiled.cost_analysis(), compiled.as_text()
    computations, entry = read_computations(text)
    cycles = kernel_flops = 0.0
    kernels = 0
    for times, instruction in executed(computations, entry):
        estimate = re.search(r'"estimated_cycles":"(\d+)"', instruction)
        kernel = re.search(r"splash_mha_(fwd|dq|dkv)", instruction)
        if 'custom_call_target="tpu_custom_call"' in instruction:
            kernels += 1
            if kernel:
                kernel_flops += times * KERNEL_MATMULS[kernel[1]] * score_flops(instruction)
        elif estimate:
            cycles += times * int(estimate[1])
    calls = text.count('custom_call_target="ConcatBitcast"')
    return {
        "flops": cost["flops"],
        "bytes": cost["bytes accessed"],
        "floor_ms": 1e3 * (cost["optimal_seconds"] + calls),
        "xla_ms": 1e3 * cycles / CLOCK_HZ,
        "kernel_ms": 1e3 * kernel_flops / PEAK_FLOPS,
        "kernels": kernels,
        "collectives": {
            name: n for name in COLLECTIVES if (n := len(re.findall(rf" {name}(-start)?\(", text)))
        },
    }


def score_flops(instruction: str) -> float:
    """Operations of one matmul over the scores; queries and keys are equally many here."""
    batch, heads, tokens = map(int, re.findall(r"bf16\[(\d+),(\d+),(\d+),\d+\]", instruction)[0])
    return 2.0 * batch * heads * tokens**2 * LANES


def read_computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Instructions of each computation of a compiled module, and the name of the first to run."""
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
    return computations, entry


def executed(
    computations: Mapping[str, list[str]], name: str, times: int = 1
) -> Iterator[tuple[int, str]]:
    """Every instruction outside of fusions with the number of times that it runs."""
    for instruction in computations[name]:
        yield times, instruction
        loop = re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", instruction)
        call = re.search(r" call\(.*to_apply=%?([\w.\-]+)", instruction)
        if loop:
            bounds = re.findall(r"s32\[\]\S* constant\((\d+)\)", "".join(computations[loop[1]]))
            length = max(map(int, bounds), default=1)
            yield from executed(computations, loop[2], times * length)
        elif call:
            yield from executed(computations, call[1], times)


if __name__ == "__main__":
    sys.exit(main())

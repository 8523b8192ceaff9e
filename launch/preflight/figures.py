"""What the compiler says of a compiled update: operations, bytes, times, kernels, traffic.

The compiler's `optimal_seconds` is repaired: it has one second too little for each custom call
whose cost it does not know (`ConcatBitcast`, the halves of `PrepareAsyncCall`).
"""

from __future__ import annotations

import math
import re
from typing import Any

from launch.preflight.collectives import as_json, read_traffic
from launch.preflight.hlo import Module, executed, read_module
from launch.preflight.memory import memory_figures

# Of fusions' estimated cycles; by the start of the device kind.
CLOCK_HZ = {"TPU v4": 1.05e9, "TPU v5 lite": 1.5e9, "TPU v5": 1.75e9, "TPU v6": 1.75e9}
LANES = 128
# Matmuls over the score matrix in each kernel of JAX's splash attention.
KERNEL_MATMULS = {"fwd": 2, "dq": 3, "dkv": 4}
UNKNOWN_COST = re.compile(r'custom_call_target="(ConcatBitcast|PrepareAsyncCall\w*)"')


def figures(compiled: Any, devices: int, updates: int = 1) -> dict[str, Any]:
    """Memory, costs and traffic of one device for a call of so many updates, per update."""
    module = read_module(compiled.as_text())
    return (
        memory_figures(compiled)
        | cost_figures(compiled.cost_analysis(), module, updates)
        | {"collectives": _per_update(as_json(read_traffic(module, devices)), updates)}
    )


def cost_figures(cost: dict[str, float], module: Module, updates: int = 1) -> dict[str, Any]:
    """Operations, bytes and times of one device.

    Returns:
      `flops`, `bytes`: the compiler's, with bodies of loops counted once and kernels not at all.
      `floor_seconds`: repaired, or None. `cycles`: of XLA's own fusions, with loops.
      `kernels`: instructions that are kernels; `kernel_flops`: of those whose work is known.
    """
    cycles = kernel_flops = 0.0
    kernels = unknown = 0
    for times, instruction in executed(module):
        estimate = re.search(r'"estimated_cycles":"(\d+)"', instruction)
        if 'custom_call_target="tpu_custom_call"' in instruction:
            kernels += 1
            kernel = re.search(r"splash_mha_(fwd|dq|dkv)", instruction)
            work = score_flops(instruction) if kernel else None
            if kernel and work is not None:
                kernel_flops += times * KERNEL_MATMULS[kernel[1]] * work
            else:
                unknown += 1
        elif estimate:
            cycles += times * int(estimate[1])
    return {
        "flops": cost.get("flops", 0.0),
        "bytes": cost.get("bytes accessed", 0.0),
        "floor_seconds": repaired_floor(cost.get("optimal_seconds"), module),
        "cycles": cycles / updates,
        "kernels": kernels,
        "unknown_kernels": unknown,
        "kernel_flops": kernel_flops / updates,
    }


def repaired_floor(optimal_seconds: float | None, module: Module) -> float | None:
    """The compiler's least time with the missing seconds given back; None without an estimate.

    One second for each call that is known to take one, in any computation, since bodies of loops
    enter the estimate once. Where the sum is still negative, other calls took whole seconds, too:
    the fractional part is what is left of the estimate.
    """
    if optimal_seconds is None or not math.isfinite(optimal_seconds):
        return None
    lines = (line for lines in module.computations.values() for line in lines)
    repaired = optimal_seconds + sum(UNKNOWN_COST.search(line) is not None for line in lines)
    return repaired if repaired >= 0 else repaired - math.floor(repaired)


def score_flops(instruction: str) -> float | None:
    """Operations of one matmul over the scores; queries and keys are equally many here.

    None where no array of the kernel is `[batch, heads, tokens, width]`.
    """
    arrays = re.findall(r"\b(?:bf16|f16|f32)\[(\d+),(\d+),(\d+),\d+\]", instruction)
    if not arrays:
        return None
    batch, heads, tokens = map(int, arrays[0])
    return 2.0 * batch * heads * tokens**2 * LANES


def clock_hz(device_kind: str) -> float | None:
    """Clock of a chip's cores; None for one that is not listed."""
    return next((hz for name, hz in CLOCK_HZ.items() if device_kind.startswith(name)), None)


def _per_update(traffic: dict[str, dict[str, Any]], updates: int) -> dict[str, dict[str, Any]]:
    for kind in traffic.values():
        kind["runs"] /= updates
        kind["bytes"] /= updates
    return traffic

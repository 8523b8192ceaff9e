"""Figures of an imaginary update for a v4-32, as the child gives them."""

from __future__ import annotations

from typing import Any

ANSWER: dict[str, Any] = {
    "state": [
        {
            "path": "params/kernel",
            "shape": [1024, 1024],
            "dtype": "float32",
            "spec": "('fsdp',)",
            "bytes": 2**22,
            "bytes_per_device": 2**20,
        },
        {
            "path": "opt_state/mu/kernel",
            "shape": [1024, 1024],
            "dtype": "float32",
            "spec": "replicated",
            "bytes": 2**22,
            "bytes_per_device": 2**22,
        },
    ],
    "variant": None,
    "variants": 0,
    "flops_per_update": 16 * 2.75e14 * 0.1,
    "device_kind": "TPU v4",
    "key": "k",
    "updates": 1,
    "cached": False,
    "compile_seconds": 3.0,
    "argument_gib": 4.0,
    "output_gib": 3.0,
    "alias_gib": 3.0,
    "temp_gib": 6.0,
    "generated_code_gib": 0.5,
    "chip_gib": 10.5,
    "peak_gib": 9.0,
    "flops": 1e12,
    "bytes": 1.2e12 * 0.05,
    "floor_seconds": 0.07,
    "cycles": 1.05e9 * 0.2,
    "kernels": 1,
    "unknown_kernels": 0,
    "kernel_flops": 2.75e14 * 0.02,
    "collectives": {
        "all-gather": {"instructions": 2, "runs": 10.0, "asynchronous": 2, "bytes": 3e11 * 0.01}
    },
}


def answer(**changes: Any) -> dict[str, Any]:
    """The figures with some changed."""
    return ANSWER | changes

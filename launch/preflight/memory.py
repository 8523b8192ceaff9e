"""Memory of one device: what the compiler reserves, or by how much a program is too large.

A program needs arguments + outputs - aliased + temporaries + code. Beside that sum stands the peak
that libtpu simulates, which knows that temporaries do not all live at once.
"""

from __future__ import annotations

import re
from typing import Any

GIB = 2**30
PARTS = ("argument", "output", "alias", "temp", "generated_code")
UNITS = {"K": 2.0**-20, "M": 2.0**-10, "G": 1.0, "T": 2.0**10}
AMOUNT = r"([\d.]+)([KMGT])"


def memory_figures(compiled: Any) -> dict[str, float]:
    """GiB of one device, of a `jax.stages.Compiled`."""
    sizes = compiled.memory_analysis()
    gib = {name: getattr(sizes, f"{name}_size_in_bytes") / GIB for name in PARTS}
    total = sum(gib.values()) - 2 * gib["alias"]
    named = {f"{name}_gib": value for name, value in gib.items()}
    return named | {"chip_gib": total, "peak_gib": sizes.peak_memory_in_bytes / GIB}


def refusal(message: str) -> dict[str, Any] | None:
    """What the compiler needed and had, of its message; None if it is about something else.

    Returns:
      `refused`: its sentence; `needed_gib` and `available_gib` where the sentence has them.
    """
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    sentence = re.search(r"Ran out of memory.*?\.(?=\s|$)", message, re.DOTALL)
    text = " ".join((sentence[0] if sentence else message[:300]).split())
    found: dict[str, Any] = {"refused": text}
    for pattern in (
        rf"Used {AMOUNT} of {AMOUNT}",
        rf"\({AMOUNT}\) exceeds available HBM \({AMOUNT}\)",
    ):
        amounts = re.search(pattern, " ".join(message.split()))
        if amounts:
            found["needed_gib"] = float(amounts[1]) * UNITS[amounts[2]]
            found["available_gib"] = float(amounts[3]) * UNITS[amounts[4]]
            break
    return found

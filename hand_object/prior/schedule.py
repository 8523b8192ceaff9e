"""How much noise a step of the diffusion has: z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) noise.

The schedule of latent diffusion (Rombach et al. 2022): the *roots* of beta rise linearly. Weights
that were trained with it are wrong under the plain linear schedule of DDPM. Steps are 0 to 999;
*respacing* keeps some of them, and the network is always told the original number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STEPS = 1000
FIRST_BETA, LAST_BETA = 0.0015, 0.0195


def betas() -> np.ndarray:
    """[1000] float64."""
    return np.linspace(np.sqrt(FIRST_BETA), np.sqrt(LAST_BETA), STEPS, dtype=np.float64) ** 2


def signal_shares() -> np.ndarray:
    """[1000] float64: the share a_t of the signal in the variance, the product of 1 - beta."""
    return np.cumprod(1.0 - betas())


class Respaced(NamedTuple):
    """Some steps: their original numbers [n] int32 and shares of the signal [n] float32."""

    steps: np.ndarray
    signal: np.ndarray


def respaced(count: int) -> Respaced:
    """`count` steps, evenly from the first to the last."""
    steps = np.round(np.arange(count) * (STEPS - 1) / (count - 1)).astype(np.int32)
    return Respaced(steps, signal_shares()[steps].astype(np.float32))

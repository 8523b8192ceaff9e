"""What a prior is told about an object: its category, as a vector.

G-HOP's is CLIP's embedding of a sentence. The prior that is trained here has vectors of its own:
random directions that follow from the name alone, so that no table need be kept. The zero vector
says nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np


def category_vector(name: str, size: int) -> np.ndarray:
    """[size] float32, of length sqrt(size); the same for a name on every machine."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(size=size)
    return (vector * np.sqrt(size) / np.linalg.norm(vector)).astype(np.float32)

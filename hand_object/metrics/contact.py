"""How hand and object touch: penetration, contact, and agreement of masks.

Inside of an object is where its signed distance is negative. It is asked by a function of points
[N, 3] m that gives distances [N] m, so that a field and a mesh (`ClosedSurface`) do alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray], np.ndarray]
CONTACT = 0.005  # meters


def penetration_depth(hand: np.ndarray, inside: Distance) -> tuple[float, float]:
    """(greatest, mean over all) depth of hand vertices [V, 3] in the object, mm."""
    depth = np.maximum(-inside(hand), 0)
    return float(depth.max() * 1000), float(depth.mean() * 1000)


def common_volume(
    hand: Distance, thing: Distance, low: np.ndarray, high: np.ndarray, voxel: float = 0.005
) -> float:
    """Volume inside of both, cm^3, by voxels (5 mm, as the field counts it) in a box."""
    axes = [np.arange(a + voxel / 2, b, voxel) for a, b in zip(low, high)]
    if not all(len(axis) for axis in axes):
        return 0.0
    centers = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    centers = centers[thing(centers) < 0]
    both = np.sum(hand(centers) < 0) if len(centers) else 0
    return float(both * voxel**3 * 1e6)


def in_contact(hands: np.ndarray, inside: Distance | list[Distance]) -> np.ndarray:
    """[T] bool: whether a hand vertex of [T, V, 3] lies within 5 mm of the object, or in it."""
    asked = inside if isinstance(inside, list) else [inside] * len(hands)
    return np.array([ask(hand).min() < CONTACT for hand, ask in zip(hands, asked)])


def contact_ratio(contact: np.ndarray) -> float:
    """Share of frames with contact, %."""
    return float(100 * contact.mean())


def contact_accuracy(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of [T] or [T, V] that agree on contact, %."""
    return float(100 * (found == wanted).mean())


def mask_iou(found: np.ndarray, wanted: np.ndarray, counted: np.ndarray | None = None) -> float:
    """Intersection over union of two masks, over the pixels that count; NaN if both are empty."""
    found, wanted = found.astype(bool), wanted.astype(bool)
    if counted is not None:
        found, wanted = found & counted, wanted & counted
    union = (found | wanted).sum()
    return float((found & wanted).sum() / union) if union else float("nan")

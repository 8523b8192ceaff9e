"""Where hand and object touch over a sequence: of each vertex the share of frames with contact."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from hand_object.meshing import Mesh
from hand_object.metrics.contact import CONTACT
from hand_object.reconstruction import Reconstruction

MOST_FRAMES = 48  # looked at, evenly spread


def contact_heat(found: Reconstruction) -> dict[str, np.ndarray]:
    """Part -> [V] in 0..1: share of its frames in which the other surface is within 5 mm.

    Surfaces stand as their vertices and the centers of their faces, so that faces should not be
    much larger than a centimeter.
    """
    if found.object is None or not found.hands:
        return {}
    thing = found.object
    surface = KDTree(_dense(thing.mesh.vertices, thing.mesh))
    heat = {"object": np.zeros(len(thing.mesh.vertices))}
    for side, hand in found.hands.items():
        frames = np.flatnonzero(hand.valid & thing.valid)
        if len(frames) > MOST_FRAMES:
            frames = frames[np.linspace(0, len(frames) - 1, MOST_FRAMES).round().astype(int)]
        own, other = np.zeros(len(hand.mesh.vertices)), np.zeros(len(thing.mesh.vertices))
        for frame in frames.tolist():
            pose = thing.to_world[frame]
            skin = (hand.vertices(frame) - pose[:3, 3]) @ pose[:3, :3]
            own += _near(surface, skin)
            other += _near(KDTree(_dense(skin, hand.mesh)), thing.mesh.vertices)
        heat[side] = own / max(len(frames), 1)
        # Of two hands, the one that touches a place more often counts.
        heat["object"] = np.maximum(heat["object"], other / max(len(frames), 1))
    return heat


def _dense(vertices: np.ndarray, mesh: Mesh) -> np.ndarray:
    return np.concatenate([vertices, vertices[mesh.faces].mean(axis=1)])


def _near(surface: KDTree, points: np.ndarray) -> np.ndarray:
    return np.isfinite(surface.query(points, distance_upper_bound=CONTACT)[0])

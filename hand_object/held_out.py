"""Poses and appearance of held-out frames, which no update ever sees.

Their poses are those of the data, moved as their neighbors were: fields and poses may drift
together in training without any picture changing, and a held-out frame has to follow. Nothing is
fitted to the held-out pictures. Numpy; letters: T frames of the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation


def neighbor_weights(held_out: np.ndarray) -> np.ndarray:
    """[T, T] float32: a trained frame is itself, another one the mean of its trained neighbors."""
    trained = np.flatnonzero(~held_out)
    weights = np.zeros((len(held_out), len(held_out)), np.float32)
    for frame in range(len(held_out)):
        before, after = trained[trained <= frame], trained[trained >= frame]
        near = {int(side[place]) for side, place in ((before, -1), (after, 0)) if len(side)}
        weights[frame, sorted(near)] = 1 / len(near)
    return weights


def followed_tables(
    tables: Mapping[str, Mapping[str, np.ndarray]],
    start: Mapping[str, Mapping[str, np.ndarray]],
    weights: np.ndarray,
) -> dict[str, dict[str, np.ndarray]]:
    """Pose tables in which held-out frames have the corrections of their neighbors.

    Args:
      start: the tables of the data.
      weights: of `neighbor_weights`.
    """
    result: dict[str, dict[str, np.ndarray]] = {}
    for name, table in tables.items():
        followed = {key: np.asarray(value, np.float32) for key, value in table.items()}
        for key, value in table.items():
            first = np.asarray(start[name][key])
            if value.ndim == 2:
                follow = _rotations if key == "rotation" else _plain
                followed[key] = follow(np.asarray(value), first, weights)
            elif value.ndim == 3:  # a hand: the whole turns, fingers bend
                whole = _rotations(np.asarray(value[:, 0]), first[:, 0], weights)
                bent = _plain(np.asarray(value[:, 1:]), first[:, 1:], weights)
                followed[key] = np.concatenate([whole[:, None], bent], axis=1)
        result[name] = followed
    return result


def _plain(values: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (first + np.einsum("ts,s...->t...", weights, values - first)).astype(np.float32)


def _rotations(values: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Axis-angles: equal rotations may have distant numbers, so that their product counts."""
    data = Rotation.from_rotvec(first)
    change = (Rotation.from_rotvec(values) * data.inv()).as_rotvec()
    moved = Rotation.from_rotvec(weights @ change) * data
    own = np.diag(weights) == 1
    return np.where(own[:, None], values, moved.as_rotvec()).astype(np.float32)


def followed_params(
    params: Mapping[str, Any], start: Mapping[str, Any], held_out: np.ndarray
) -> dict[str, Any]:
    """Parameters with which every frame of the sequence can be rendered."""
    weights = neighbor_weights(held_out)
    result = dict(params)
    result["poses"] = followed_tables(params["poses"], start, weights)
    if "background_codes" in params:
        result["background_codes"] = weights @ np.asarray(params["background_codes"])
    if "object" in params["nodes"]:
        thing = dict(params["nodes"]["object"])
        thing["frame_codes"] = weights @ np.asarray(thing["frame_codes"])
        result["nodes"] = dict(params["nodes"]) | {"object": thing}
    return result

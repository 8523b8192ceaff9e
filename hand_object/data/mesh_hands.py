"""Hands that are known by meshes only are given the poses of a model of the same topology."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hand_object.data.finding import Finding, overlay
from hand_object.data.sequence import Sequence, filled
from hand_object.hands.model import HandModel
from hand_object.hands.registration import register

MOST_ERROR = 0.005  # meters, mean over the vertices of a frame


def register_meshes(
    sequence: Sequence, models: Mapping[str, HandModel]
) -> tuple[Sequence, list[Finding]]:
    """The sequence with poses for every hand that has meshes and a model; how well they fit.

    Raises:
      InputError: meshes have another number of vertices than the model.
    """
    hands, findings = dict(sequence.hands), []
    for side, track in sequence.hands.items():
        if track.vertices is None or side not in models or not track.valid.any():
            continue
        found = register(models[side], track.vertices[track.valid])
        frames = np.flatnonzero(track.valid)
        worst = int(np.argmax(found.errors))
        frame, error = int(frames[worst]), float(found.errors[worst])
        findings.append(_finding(sequence, side, models[side].name, frame, error))
        pose = np.zeros((len(sequence), *found.pose.shape[1:]), np.float32)
        shift = np.zeros((len(sequence), 3), np.float32)
        pose[frames], shift[frames] = found.pose, found.translation
        hands[side] = replace(
            track,
            pose=filled(pose, track.valid),
            translation=filled(shift, track.valid),
            shape=found.shape,
        )
    return replace(sequence, hands=hands), findings


def _finding(sequence: Sequence, side: str, model: str, frame: int, error: float) -> Finding:
    name = f"registration of the {side} hand"
    told = f"hand model {model} lies within {1000 * error:.2g} mm of the meshes of the {side} hand"
    if error <= MOST_ERROR:
        return Finding(name, "green", f"{told} (mean over vertices, worst frame {frame})")
    sentence = (
        f"{sequence.name}: hand model {model} does not get nearer than {1000 * error:.1f} mm to "
        f"the mesh of the {side} hand in frame {frame}; its vertices are listed in another order "
        "or are of another hand: name the model that they were made with"
    )
    vertices = sequence.hands[side].vertices
    assert vertices is not None
    return Finding(name, "red", sentence, overlay(sequence, frame, vertices[frame]))

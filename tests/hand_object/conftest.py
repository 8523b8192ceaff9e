"""A made sequence and its exact truth, shared by the tests of what comes after training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hand_object.data.ground_truth import read_ground_truth
from hand_object.data.hold_build import read_hold_build
from hand_object.data.sequence import Sequence
from hand_object.hands.sources import load_hand
from hand_object.meshing import Mesh
from hand_object.reconstruction import Reconstruction
from hand_object.synthetic import Scene, make_sequence


@pytest.fixture(scope="session")
def made_folder(tmp_path_factory) -> Path:
    """Six frames of 48 x 64 pixels of a right hand that holds a box."""
    folder = tmp_path_factory.mktemp("made_sequence")
    make_sequence(Scene(frames=6, object="box"), folder)
    return folder


@pytest.fixture(scope="session")
def sequence(made_folder: Path) -> Sequence:
    return read_hold_build(made_folder)


def split(mesh: Mesh) -> Mesh:
    """Each triangle in four; corners of neighbors stay apart."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    parts = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
    vertices = np.concatenate([np.stack(part, axis=1) for part in parts]).reshape(-1, 3)
    return Mesh(vertices, np.arange(len(vertices), dtype=np.int32).reshape(-1, 3))


@pytest.fixture(scope="session")
def fine_truth(truth: Reconstruction) -> Reconstruction:
    """The object in triangles of about 5 mm."""
    thing = truth.object
    assert thing is not None
    return replace(truth, object=replace(thing, mesh=split(split(thing.mesh))))


@pytest.fixture(scope="session")
def truth(made_folder: Path, sequence: Sequence) -> Reconstruction:
    models = {"right": load_hand("parametric", "right")}
    return read_ground_truth(made_folder / "ground_truth.npz", sequence, models)

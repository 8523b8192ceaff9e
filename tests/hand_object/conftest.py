"""A made sequence and its exact truth, shared by the tests of what comes after training."""

from __future__ import annotations

from pathlib import Path

import pytest

from hand_object.data.ground_truth import read_ground_truth
from hand_object.data.hold_build import read_hold_build
from hand_object.data.sequence import Sequence
from hand_object.hands.sources import load_hand
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


@pytest.fixture(scope="session")
def truth(made_folder: Path, sequence: Sequence) -> Reconstruction:
    models = {"right": load_hand("parametric", "right")}
    return read_ground_truth(made_folder / "ground_truth.npz", sequence, models)

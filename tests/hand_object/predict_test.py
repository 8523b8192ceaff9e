"""Frames of a trained scene as pictures and posed meshes; another sequence is refused."""

from __future__ import annotations

import argparse
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from hand_object import predict
from hand_object.data.sequence_access import open_sequence
from tests.hand_object.scenes import HOLD_OUT, make_program, small_config, task_of
from training.errors import ConfigError, InputError

FRAMES = 6


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize("text", ["3", "5:2", "2:2", "a:b", "-1:3", ""])
def test_frames_that_cannot_be_meant_are_refused(text):
    with pytest.raises(ConfigError, match="write A:B"):
        predict.frame_range(text)


def test_frames_beyond_the_end_are_refused():
    assert predict.chosen_frames("2:4", 6) == [2, 3]
    assert predict.chosen_frames(None, 3) == [0, 1, 2]
    with pytest.raises(ConfigError, match="has 6 frames"):
        predict.chosen_frames("2:7", 6)


@pytest.fixture
def task(made_folder):
    from dataclasses import replace

    config = small_config()
    config = replace(config, sequence=replace(config.sequence, path=str(made_folder)))
    return task_of(config, open_sequence(config.sequence))


def test_another_sequence_is_refused_and_a_copy_is_not(task, made_folder, tmp_path):
    predict.refuse_another_sequence(task, str(made_folder))
    copy = tmp_path / "copy"
    shutil.copytree(made_folder, copy)
    predict.refuse_another_sequence(task, str(copy))
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(copy / "build/image/0002.png")
    with pytest.raises(InputError, match="is not the sequence that the run was trained on"):
        predict.refuse_another_sequence(task, str(copy))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_frame_gets_a_picture_and_the_meshes_that_are_there(task, made_folder, tmp_path):
    program = make_program(task)
    words = ("--input", str(made_folder), "--output", str(tmp_path / "out"), "--frames", "2:4")
    args = arguments(*words, "--resolution", "16")
    predict.check_arguments(args)
    with jax.set_mesh(program.layout.mesh):
        lines = predict.predict(program, program.initial_state(), 7, args)
    assert "step 7: 2 renderings and 4 posed meshes" in lines[0]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    parts = ("object", "right")
    assert names == {
        f"{frame:04d}{end}" for frame in (2, 3) for end in (".png", *(f"_{p}.ply" for p in parts))
    }
    shown = np.asarray(Image.open(tmp_path / "out/0002.png"))
    assert shown.shape == (48, 3 * 64, 3)
    np.testing.assert_array_equal(shown[:, :64], task.opened.images[2])
    assert HOLD_OUT == 4  # frame 3 is held out, and is predicted all the same
    assert task.held_out[3]

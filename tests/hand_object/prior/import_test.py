"""G-HOP's checkpoint is taken whole or refused by name; what does not work is refused, too."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from hand_object import import_weights
from hand_object.prior import import_ghop
from hand_object.prior.ghop_names import TEXT, entries
from hand_object.prior.grid import FULL_GRID
from hand_object.prior.import_ghop import check_probe, converted, read_conditions
from hand_object.prior.model.unet import UnetConfig
from hand_object.prior.model.vqvae import VqvaeConfig
from hand_object.prior.places import FILE
from hand_object.prior.prior_file import load_prior
from hand_object.prior.trained_prior import PriorForm
from training.errors import CheckpointError, InputError
from training.paths import named_leaves

UNET = UnetConfig(width=8, multiples=(1, 2), blocks=1, attended=(1,), head=8, groups=4, condition=6)
VQVAE = VqvaeConfig(width=8, multiples=(1, 1, 2), codes=16, groups=4)
FORM = PriorForm(FULL_GRID, UNET, VQVAE, "mano")
WHERE = Path("last.ckpt")


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    """Of our arrays."""
    return {name: leaf.shape for name, leaf in named_leaves(FORM.shapes()).items()}


@pytest.fixture
def tensors(shapes) -> dict[str, np.ndarray]:
    """Every number of the checkpoint is another one."""
    made, start = {}, 0
    for entry in entries(UNET, VQVAE):
        shape = shapes[entry.ours]
        size = int(np.prod(shape))
        order = {"conv": (4, 3, 0, 1, 2), "dense": (1, 0)}.get(entry.kind)
        theirs = shape if order is None else tuple(shape[axis] for axis in order)
        made[entry.theirs] = np.arange(start, start + size, dtype=np.float32).reshape(theirs)
        start += size
    return made


def test_full_size_names_every_array_once():
    wanted = named_leaves(import_ghop.FULL.shapes())
    listed = entries(UnetConfig(), VqvaeConfig())
    assert sorted(entry.ours for entry in listed) == sorted(wanted)
    assert len({entry.theirs for entry in listed}) == len(listed)


def test_every_number_arrives_at_its_place(tensors):
    params = named_leaves(converted(tensors, FORM, WHERE))
    kernel = tensors["glide_model.input_blocks.0.0.weight"]  # out, in, D, H, W
    found = params["unet/first/kernel"]
    assert found[0, 1, 2, 5, 7] == kernel[7, 5, 0, 1, 2]
    dense = tensors["glide_model.time_embed.0.weight"]
    assert params["unet/time_in/kernel"][3, 9] == dense[9, 3]
    everything = np.sort(np.concatenate([leaf.ravel() for leaf in params.values()]))
    np.testing.assert_array_equal(everything, np.arange(len(everything)))


def test_missing_and_leftover_arrays_are_named(tensors):
    del tensors["ae.model.quant_conv.bias"]
    tensors["glide_model.output_blocks.99.0.weight"] = np.zeros(3)
    with pytest.raises(CheckpointError) as error:
        converted(tensors, FORM, WHERE)
    assert "1 missing (ae.model.quant_conv.bias)" in str(error.value)
    assert "1 left over (glide_model.output_blocks.99.0.weight)" in str(error.value)


def test_other_shapes_and_broken_numbers_are_named(tensors):
    whole = tensors["glide_model.out.2.weight"]
    tensors["glide_model.out.2.weight"] = whole[:, :4]
    with pytest.raises(CheckpointError, match=r"other shapes than G-HOP's: glide_model.out"):
        converted(tensors, FORM, WHERE)
    tensors["glide_model.out.2.weight"] = whole * np.float32(np.nan)
    with pytest.raises(CheckpointError, match=r"not finite: glide_model.out.2.weight"):
        converted(tensors, FORM, WHERE)


def test_weights_that_do_not_work_are_refused():
    check_probe(0.02, 0.5, WHERE)
    for ball, noise in ((0.5, 0.1), (0.02, 1.2), (float("nan"), 0.1)):
        with pytest.raises(CheckpointError, match=r"fit by name but do not work"):
            check_probe(ball, noise, WHERE)


def test_conditions_must_be_there_and_fit(tmp_path):
    with pytest.raises(InputError, match=r"does not say what categories mean; give --conditions"):
        read_conditions(None, 6)
    path = tmp_path / "clip.npz"
    np.savez(path, mug=np.ones(6))
    with pytest.raises(InputError, match=r"`empty` is missing"):
        read_conditions(path, 6)
    np.savez(path, mug=np.ones(5), empty=np.zeros(6))
    with pytest.raises(InputError, match=r"mug is \(5,\)"):
        read_conditions(path, 6)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"cannot be read"):
        read_conditions(path, 6)


def test_command_writes_a_prior_that_loads(tensors, tmp_path, monkeypatch):
    """With a narrow form, and a probe that is content (its networks are not trained)."""
    monkeypatch.setattr(import_ghop, "FULL", FORM)
    monkeypatch.setattr(import_ghop, "probed", lambda prior: (0.02, 0.5))
    clip = {f"{TEXT}weight": np.zeros(3, np.float32)}
    monkeypatch.setattr(
        import_ghop, "read_torch_file", lambda path, inert: {"state_dict": tensors | clip}
    )
    np.savez(tmp_path / "clip.npz", mug=np.ones(6), empty=np.zeros(6))
    arguments = argparse.Namespace(
        source=WHERE, workdir=tmp_path / "ghop", conditions=tmp_path / "clip.npz"
    )
    lines = import_weights.import_weights(arguments)
    assert FILE in lines[0] and "1 arrays of the text encoder were left aside" in lines[0]
    prior = load_prior(str(tmp_path / "ghop"), "mug")
    assert prior.form == FORM
    np.testing.assert_array_equal(prior.condition, np.ones(6))
    found = named_leaves(prior.params)
    for name, value in named_leaves(converted(tensors, FORM, WHERE)).items():
        np.testing.assert_array_equal(found[name], value)

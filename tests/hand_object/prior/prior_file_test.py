"""Priors are saved and loaded whole; a wrong one is refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.prior.grid import FULL_GRID, MINI_GRID
from hand_object.prior.model.unet import UnetConfig
from hand_object.prior.model.vqvae import VqvaeConfig
from hand_object.prior.places import EMBEDDED
from hand_object.prior.prior_file import load_prior, save_prior
from hand_object.prior.trained_prior import PriorForm, TrainedPrior
from training.errors import CheckpointError, ConfigError
from training.weight_files import read_safetensors, write_safetensors

pytestmark = pytest.mark.usefixtures("quick_compilation")
GRID = replace(MINI_GRID, object_size=4, hand_size=4)
UNET = UnetConfig(
    width=8, multiples=(1,), blocks=1, attended=(0,), head=8, groups=4, condition=3, guesses="clean"
)
FORM = PriorForm(GRID, replace(UNET, dropout=0.0), None, "parametric")


def random_params(form: PriorForm):
    random = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: np.float32(random.normal(0, 0.2, leaf.shape)), form.shapes())


@pytest.fixture(scope="module")
def params():
    return random_params(FORM)


@pytest.fixture
def saved(params, tmp_path):
    path = tmp_path / "prior.safetensors"
    conditions = {"": np.zeros(3), "mug": np.array([1.0, 2, 3])}
    save_prior(path, params, conditions, FORM, "made by a test")
    return path


def test_prior_comes_back(saved, params):
    prior = load_prior(str(saved), "mug", GRID)
    assert prior.form == FORM
    np.testing.assert_array_equal(prior.condition, [1, 2, 3])
    np.testing.assert_array_equal(prior.empty, 0)
    jax.tree.map(np.testing.assert_array_equal, prior.params, params)
    np.testing.assert_array_equal(load_prior(str(saved)).condition, 0)  # no category: nothing told


def test_embedded_prior_is_there_and_small():
    prior = load_prior("mini", "bottle", MINI_GRID)
    assert prior.form.hand == "parametric"
    assert np.abs(prior.condition).max() > 0
    assert EMBEDDED["mini"].stat().st_size <= 6 * 2**20
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(prior.params))
    # A trained one: the last layer starts at zero.
    assert np.abs(prior.params["unet"]["last"]["kernel"]).max() > 0


def test_unknown_categories_are_refused_with_the_known_ones(saved):
    with pytest.raises(ConfigError, match=r"knows no category 'mugg'; did you mean mug\?"):
        load_prior(str(saved), "mugg")


def test_prior_of_another_shape_or_normalization_is_refused(saved):
    with pytest.raises(ConfigError, match=r"another shape.*object_size is 4 of the prior and 64"):
        load_prior(str(saved), wanted=FULL_GRID)
    narrow = replace(GRID, truncation=0.5)
    with pytest.raises(ConfigError, match=r"another normalization.*truncation is 0.2 of"):
        load_prior(str(saved), wanted=narrow)


def test_file_that_does_not_hold_what_it_says_is_refused(saved, tmp_path):
    arrays = read_safetensors(saved)
    lost = "unet/last/bias"
    del arrays[lost]
    header = {"form": _form_text(), "note": ""}
    write_safetensors(saved, arrays, header)
    with pytest.raises(CheckpointError, match=rf"1 arrays are missing.*{lost}"):
        load_prior(str(saved))
    write_safetensors(saved, arrays)
    with pytest.raises(CheckpointError, match=r"does not say which prior it holds"):
        load_prior(str(saved))
    with pytest.raises(ConfigError, match=r"there is no prior at .*nowhere"):
        load_prior(str(tmp_path / "nowhere"))


def test_grids_that_no_autoencoder_joins_are_refused():
    with pytest.raises(ConfigError, match=r"autoencoder that shrinks by 4; this one.* by 1"):
        PriorForm(FULL_GRID)
    assert PriorForm(FULL_GRID, UnetConfig(), VqvaeConfig()).channels == 23


def test_guess_of_a_clean_grid_becomes_noise(params, new_key):
    """The prior says both, with and without what it is told of the object."""
    ask = jax.jit(lambda prior, z: prior.guesses(z, 400))
    noisy = jax.random.normal(new_key(), (4, 4, 4, 21))
    told, free = ask(TrainedPrior(params, jnp.ones(3), jnp.zeros(3), FORM), noisy)
    assert told.shape == noisy.shape and np.abs(told - free).max() > 1e-4
    again, _ = ask(TrainedPrior(params, jnp.zeros(3), jnp.zeros(3), FORM), noisy)
    np.testing.assert_allclose(again, free, atol=1e-5)


def _form_text() -> str:
    return json.dumps(asdict(FORM))

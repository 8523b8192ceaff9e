"""The model as a function: what sees what, equal ways to compute it, and initial values."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.config import LossConfig, ModelConfig, TransformerConfig
from jepa3d.losses import jepa_loss
from jepa3d.masks import mask_preset, sample_masks
from jepa3d.model.jepa import encode, init_params, normalize_targets, predict, predict_targets
from jepa3d.model.patches import patchify
from training.errors import ConfigError

CONFIG = ModelConfig(
    volume=(16, 64, 64),
    encoder=TransformerConfig(48, 2, 4),
    predictor=TransformerConfig(24, 2, 2),
)
DEEP = dataclasses.replace(CONFIG, supervise_layers=(0, 1), context_head=True)
ENCODE = jax.jit(encode, static_argnums=0)
PREDICT = jax.jit(predict, static_argnums=0)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@functools.cache
def example(config, sets=2):
    """Parameters, target parameters, volumes and masks of a batch of two."""
    return jax.jit(drawn, static_argnums=(1, 2))(jax.random.key(11), config, sets)


def drawn(key, config, sets):
    keys = jax.random.split(key, 4)
    params, target = init_params(keys[0], config), init_params(keys[1], config)
    volumes = jax.random.normal(keys[2], (2, *config.volume, config.channels))
    masks = []
    for index, mask in enumerate(mask_preset("default", config.grid)[:sets]):
        samples = jax.random.split(jax.random.fold_in(keys[3], index), 2)

        def sample(k, mask=mask):
            return sample_masks(k, config.grid, mask)

        masks.append(jax.vmap(sample)(samples))
    return params, {"encoder": target["encoder"]}, volumes, masks


def loss_of(config, params, target, volumes, masks):
    prediction = predict(config, params, target, volumes, masks)
    out = jepa_loss(prediction, LossConfig(), config.grid)
    terms = [*out.prediction, *(term for term in out.dense if term is not None)]
    return sum(term.sum / term.weight for term in terms)


@functools.cache
def value_and_gradients(config):
    """The loss and its gradients in parameters and target parameters, compiled once."""

    def loss(params, target, volumes, masks):
        return loss_of(config, params, target, volumes, masks)

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(
        *example(
            dataclasses.replace(config, unroll=False, remat="none", attention=CONFIG.attention),
            sets=1,
        )
    )


def test_patches_equal_a_strided_convolution(new_key):
    volumes = jax.random.normal(new_key(), (2, 8, 12, 8, 3))
    kernel = jax.random.normal(new_key(), (5, 3, 2, 4, 4))  # torch order: out, channel, d, h, w
    expected = jax.lax.conv_general_dilated(
        volumes, kernel, (2, 4, 4), "VALID", dimension_numbers=("NDHWC", "OIDHW", "NDHWC")
    )
    found = patchify(volumes, (2, 4, 4)) @ kernel.reshape(5, -1).T
    np.testing.assert_allclose(found, expected.reshape(2, -1, 5), atol=1e-4)


def test_visible_features_do_not_depend_on_hidden_voxels(new_key):
    params, _, volumes, masks = example(CONFIG)
    context_ids = masks[0][0]
    before = ENCODE(CONFIG, params["encoder"], volumes, context_ids)
    hidden = np.ones((2, CONFIG.tokens), np.float32)
    np.put_along_axis(hidden, np.array(context_ids), 0.0, axis=1)
    depth, height, width = CONFIG.grid
    voxels = hidden.reshape(2, depth, 1, height, 1, width, 1)
    voxels = np.broadcast_to(voxels, (2, depth, 4, height, 16, width, 16))
    noise = jax.random.normal(new_key(), volumes.shape) * voxels.reshape(volumes.shape)
    after = ENCODE(CONFIG, params["encoder"], volumes + noise, context_ids)
    np.testing.assert_array_equal(before, after)


def test_encoding_all_tokens_by_id_equals_encoding_the_volume():
    params, _, volumes, _ = example(CONFIG)
    ids = jnp.tile(jnp.arange(CONFIG.tokens), (2, 1))
    whole = ENCODE(CONFIG, params["encoder"], volumes)
    np.testing.assert_allclose(ENCODE(CONFIG, params["encoder"], volumes, ids), whole, atol=1e-5)


def test_tokens_have_the_positions_of_their_ids_in_any_order():
    params, _, volumes, _ = example(CONFIG)
    ids = jnp.tile(jnp.arange(CONFIG.tokens)[::-1], (2, 1))
    whole = ENCODE(CONFIG, params["encoder"], volumes)
    turned = ENCODE(CONFIG, params["encoder"], volumes, ids)
    np.testing.assert_allclose(turned[:, ::-1], whole, atol=1e-5)


def test_every_mask_set_has_a_mask_token_of_its_own(new_key):
    params, _, _, masks = example(CONFIG)
    context_ids, target_ids = masks[0]
    context = jax.random.normal(new_key(), (*context_ids.shape, CONFIG.feature_dim))
    tokens = jax.random.normal(new_key(), params["predictor"]["mask_tokens"].shape)
    predictor = {**params["predictor"], "mask_tokens": tokens}
    run = jax.jit(predict_targets, static_argnums=(0, 5))
    first, second = (
        run(CONFIG, predictor, context, context_ids, target_ids, index)[0] for index in (0, 1)
    )
    assert np.abs(np.asarray(first - second)).max() > 1e-3 * np.abs(np.asarray(first)).max()


def test_targets_are_the_features_at_the_hidden_positions():
    prediction = PREDICT(CONFIG, *example(CONFIG))
    whole = np.asarray(prediction.target_BxNxD)
    for one, (_, target_ids) in zip(prediction.sets, example(CONFIG)[3]):
        expected = np.take_along_axis(whole, np.asarray(target_ids)[:, :, None], axis=1)
        np.testing.assert_array_equal(one.target_BxTxD, expected)


def test_a_prediction_depends_on_the_position_that_is_asked_for(new_key):
    params, _, _, masks = example(CONFIG)
    context_ids, target_ids = masks[0]
    context = jax.random.normal(new_key(), (*context_ids.shape, CONFIG.feature_dim))
    run = jax.jit(predict_targets, static_argnums=(0, 5))
    there, elsewhere = (
        np.asarray(run(CONFIG, params["predictor"], context, context_ids, ids, 0)[0])
        for ids in (target_ids, target_ids[:, ::-1])
    )
    # The same questions in another order: the same answers in that order, and no others.
    np.testing.assert_allclose(elsewhere[:, ::-1], there, atol=1e-5)
    assert np.abs(elsewhere - there).max() > 1e-3 * np.abs(there).max()


def test_targets_have_mean_zero_and_variance_one_per_token_and_level(new_key):
    features = 3.0 + 2.0 * jax.random.normal(new_key(), (2, 5, 96))
    target = np.array(normalize_targets(features, 2)).reshape(2, 5, 2, 48)
    np.testing.assert_allclose(target.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(target.var(-1), 1.0, rtol=1e-4)


def test_no_gradient_reaches_the_target_encoder_and_every_parameter_gets_one():
    _, (ours, theirs) = value_and_gradients(DEEP)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(theirs))
    for path, leaf in jax.tree_util.tree_leaves_with_path(ours):
        assert float(jnp.abs(leaf).max()) > 0.0, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        pytest.param(DEEP, {"unroll": True}, id="levels, unrolled"),
        pytest.param(DEEP, {"remat": "save_matmuls"}, id="levels, matmuls kept"),
        pytest.param(
            CONFIG,
            {"remat": "save_attention", "attention": "chunked"},
            id="last, chunked attention kept",
        ),
        pytest.param(DEEP, {"attention": "chunked"}, id="levels, chunked attention"),
        pytest.param(
            CONFIG, {"unroll": True, "remat": "block", "attention": "chunked"}, id="last, all three"
        ),
    ],
)
def test_other_ways_to_compute_give_the_same_loss_and_gradient(config, changes):
    value, gradient = value_and_gradients(config)
    again, same = value_and_gradients(dataclasses.replace(config, **changes))
    assert float(again) == pytest.approx(float(value), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradient, same)


def test_bfloat16_stays_near_float32_and_keeps_parameters_in_float32(new_key):
    params, target, volumes, masks = example(CONFIG)
    half = dataclasses.replace(CONFIG, dtype="bfloat16")
    exact = PREDICT(CONFIG, params, target, volumes, masks)
    rough = PREDICT(half, params, target, volumes, masks)
    assert rough.target_BxNxD.dtype == rough.sets[0].prediction_BxTxD.dtype == jnp.float32
    np.testing.assert_allclose(rough.target_BxNxD, exact.target_BxNxD, atol=0.15)
    assert not np.array_equal(rough.target_BxNxD, exact.target_BxNxD)
    started = jax.eval_shape(lambda key: init_params(key, half), new_key())
    assert {leaf.dtype for leaf in jax.tree.leaves(started)} == {jnp.dtype("float32")}


def test_initial_values_follow_the_reference(new_key):
    config = dataclasses.replace(CONFIG, encoder=TransformerConfig(192, 3, 4))
    params = jax.jit(init_params, static_argnums=1)(new_key(), config)["encoder"]
    for name, divided in (("qkv", False), ("fc1", False), ("out", True), ("fc2", True)):
        for index in range(3):
            expected = 0.02 / (2 * (index + 1)) ** 0.5 if divided else 0.02
            assert float(params["layers"][name]["kernel"][index].std()) == pytest.approx(
                expected, rel=0.05
            )
    assert float(jnp.abs(params["layers"]["qkv"]["bias"]).max()) == 0.0


def test_supervised_levels_are_concatenated():
    params, target, volumes, masks = example(DEEP)
    prediction = PREDICT(DEEP, params, target, volumes, masks)
    assert prediction.target_BxNxD.shape == (2, 64, 96)
    assert (
        prediction.sets[0].context_prediction_BxKxD.shape
        == prediction.sets[0].context_target_BxKxD.shape
    )


def test_more_mask_sets_than_mask_tokens_are_refused():
    config = dataclasses.replace(CONFIG, mask_tokens=1)
    arguments = example(CONFIG)
    with pytest.raises(ConfigError, match=r"model\.mask_tokens is 1; raise it"):
        predict(config, *arguments)


def test_spacing_changes_features_only_when_given():
    params, _, volumes, _ = example(CONFIG)
    one = jnp.ones((2, 3))
    plain = ENCODE(CONFIG, params["encoder"], volumes)
    same = ENCODE(CONFIG, params["encoder"], volumes, position_scale=one)
    other = ENCODE(CONFIG, params["encoder"], volumes, position_scale=2.0 * one)
    np.testing.assert_allclose(same, plain, atol=1e-6)
    assert float(jnp.abs(other - plain).max()) > 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {"volume": (15, 64, 64)},
        {"supervise_layers": (2,)},
        {"supervise_layers": (1, 0)},
    ],
)
def test_senseless_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        dataclasses.replace(CONFIG, **changes)


def test_heads_must_split_the_width():
    with pytest.raises(ConfigError, match="change heads"):
        ModelConfig(encoder=TransformerConfig(48, 2, 5))

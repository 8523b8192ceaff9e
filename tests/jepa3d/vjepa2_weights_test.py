"""Published weights: values they must give, and a strict two-way map of names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.config import LossConfig, ModelConfig, TransformerConfig
from jepa3d.losses import jepa_loss
from jepa3d.model.jepa import encode, init_params, predict, predict_targets
from jepa3d.model.pooler import AttentivePooler, pool
from jepa3d.vjepa2_weights import export_weights, import_weights
from training.errors import CheckpointError, ConfigError
from training.weight_files import read_safetensors, write_safetensors

ENCODE = jax.jit(encode, static_argnums=0)
POOL = jax.jit(pool, static_argnums=0)
FIXTURE = Path(__file__).with_name("fixtures") / "vjepa2.npz"
CONFIG = ModelConfig(
    volume=(4, 16, 16),
    patch=(2, 4, 4),
    channels=2,
    encoder=TransformerConfig(24, 2, 2),
    predictor=TransformerConfig(16, 2, 2),
    mask_tokens=2,
)


@pytest.fixture(scope="module")
def golden():
    with np.load(FIXTURE) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def tensors(golden):
    return {k.removeprefix("weight/"): v for k, v in golden.items() if k.startswith("weight/")}


@pytest.fixture(scope="module")
def params(tensors):
    return import_weights(tensors, CONFIG, pooler_layers=1)


def test_full_and_visible_only_encoder_give_the_recorded_features(golden, params):
    volumes = jnp.asarray(golden["volumes"])
    features = ENCODE(CONFIG, params["encoder"], volumes)
    np.testing.assert_allclose(features, golden["features"], atol=1e-5)
    visible = ENCODE(CONFIG, params["encoder"], volumes, jnp.asarray(golden["context_ids"]))
    np.testing.assert_allclose(visible, golden["visible"], atol=1e-5)
    other = dataclasses.replace(CONFIG, rope="interleaved")
    assert np.abs(ENCODE(other, params["encoder"], volumes) - golden["features"]).max() > 1e-3


def test_predictor_and_pooler_give_the_recorded_outputs(golden, params):
    ids = (jnp.asarray(golden["context_ids"]), jnp.asarray(golden["target_ids"]))
    visible = jnp.asarray(golden["visible"])
    found, _ = predict_targets(CONFIG, params["predictor"], visible, *ids, mask_index=1)
    np.testing.assert_allclose(found, golden["prediction"], atol=1e-5)
    pooled = POOL(CONFIG, params["pooler"], jnp.asarray(golden["features"]))
    np.testing.assert_allclose(pooled, golden["pooled"], atol=1e-5)


def test_training_step_gives_the_recorded_loss_and_gradients(golden, params):
    trained = {name: params[name] for name in ("encoder", "predictor")}
    ids = (jnp.asarray(golden["context_ids"]), jnp.asarray(golden["target_ids"]))

    def loss(trained):
        # The recording used the second mask token; both sets are the same mask here.
        prediction = predict(CONFIG, trained, params, jnp.asarray(golden["volumes"]), [ids, ids])
        term = jepa_loss(prediction, LossConfig(), CONFIG.grid).prediction[1]
        return term.sum / term.weight

    value, gradient = jax.jit(jax.value_and_grad(loss))(trained)
    assert float(value) == pytest.approx(float(golden["loss"]), abs=1e-6)
    named = export_weights(gradient, CONFIG)
    for short, name in (
        ("qkv", "encoder.layer.1.attention.query.weight"),
        ("patch", "encoder.embeddings.patch_embeddings.proj.weight"),
        ("mask_tokens", "predictor.embeddings.mask_tokens"),
    ):
        np.testing.assert_allclose(named[name], golden[f"gradient/{short}"], atol=1e-6)


def test_transformers_names_survive_the_round_trip(tensors, params):
    back = export_weights(params, CONFIG, pooler_layers=1)
    expected = {name.removeprefix("vjepa2."): value for name, value in tensors.items()}
    assert back.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_official_names_lead_to_the_same_parameters(params):
    trained = {name: params[name] for name in ("encoder", "predictor")}
    official = export_weights(trained, CONFIG, "official")
    assert official["encoder.blocks.0.attn.qkv.weight"].shape == (72, 24)
    assert official["predictor.mask_tokens.1"].shape == (1, 1, 16)
    wrapped = {
        name.replace("encoder.", "encoder.module.backbone.", 1): value
        for name, value in official.items()
    }
    wrapped["encoder.module.backbone.pos_embed"] = np.zeros((1, 32, 24), np.float32)
    back = import_weights(wrapped, CONFIG, "official")
    jax.tree.map(np.testing.assert_array_equal, back, trained)


def test_converted_trees_have_the_structure_of_fresh_ones(new_key, params):
    tokens = jnp.zeros((1, 1, CONFIG.feature_dim))
    pooler = AttentivePooler(CONFIG, layers=1)

    def start(key):
        return {**init_params(key, CONFIG), "pooler": pooler.init(key, tokens)["params"]}

    fresh = jax.eval_shape(start, new_key())
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(np.shape, params)


def test_missing_and_unused_tensors_are_listed(tensors):
    changed = dict(tensors)
    del changed["vjepa2.encoder.layer.1.norm2.bias"]
    changed["vjepa2.encoder.extra"] = np.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        import_weights(changed, CONFIG, pooler_layers=1)
    assert "missing ['encoder.layer.1.norm2.bias'], unused ['encoder.extra']" in str(caught.value)


def test_tensors_of_another_size_are_listed(tensors):
    wider = dataclasses.replace(CONFIG, patch=(4, 4, 4))
    with pytest.raises(CheckpointError, match=r"proj\.weight is \(24, 2, 2, 4, 4\), expected"):
        import_weights(tensors, wider, pooler_layers=1)


def test_unknown_naming_is_refused(tensors):
    with pytest.raises(ConfigError, match="transformers or official"):
        import_weights(tensors, CONFIG, "timm")


def test_safetensors_survive_the_round_trip(tmp_path, tensors):
    path = tmp_path / "model.safetensors"
    half = np.arange(6, dtype=np.float16).reshape(2, 3)
    short = np.asarray(jnp.arange(4, dtype=jnp.bfloat16))
    written = {**tensors, "half": half, "short": short, "scalar": np.float32(3.0)}
    write_safetensors(path, written)
    back = read_safetensors(path)
    assert back.keys() == written.keys()
    for name, value in written.items():
        assert back[name].dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(back[name], value)


def test_a_file_cut_short_is_refused(tmp_path, tensors):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, tensors)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="lies outside the file"):
        read_safetensors(path)
    path.write_bytes(b"short")
    with pytest.raises(CheckpointError, match="no complete safetensors"):
        read_safetensors(path)
    with pytest.raises(CheckpointError, match="check the path"):
        read_safetensors(tmp_path / "absent.safetensors")

"""The joint-embedding predictive model as pure functions of parameters.

Parameters are a plain nested dict {"encoder": ..., "predictor": ...}. The target encoder is a
second "encoder" tree, kept and moved by the caller (exponential moving average); it never gets a
gradient.

Legend: B batch, N tokens of the grid, K context tokens, T target tokens, D feature_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from jepa3d.config import ModelConfig
from jepa3d.model.patches import gather_tokens, patchify
from jepa3d.model.predictor import Predictor
from jepa3d.model.rope import rope_tables
from jepa3d.model.vit import Encoder
from training.errors import ConfigError

Params = dict[str, Any]
TARGET_EPSILON = 1e-5  # torch's default: the reference normalizes targets with F.layer_norm


class SetPrediction(NamedTuple):
    """What one mask set contributes to the loss."""

    prediction_BxTxD: jax.Array
    target_BxTxD: jax.Array
    target_ids_BxT: jax.Array
    context_ids_BxK: jax.Array
    context_prediction_BxKxD: jax.Array | None
    context_target_BxKxD: jax.Array | None


class Prediction(NamedTuple):
    """Predictions per mask set, and the features that they are compared with."""

    sets: tuple[SetPrediction, ...]
    target_BxNxD: jax.Array  # normalized target features of all tokens, float32
    features_BxNxD: jax.Array  # the same before normalization, for diagnostics


def init_params(key: jax.Array, config: ModelConfig) -> Params:
    """Fresh float32 parameters {"encoder", "predictor"}, initialized as V-JEPA 2.

    Kernels N(0, 0.02²), biases and mask tokens 0; the residual projections (`out`, `fc2`) of block
    i are divided by sqrt(2 i), i from 1.
    """
    encoder_key, predictor_key = jax.random.split(key)
    head, narrow = config.encoder.head_dim, config.predictor.head_dim
    # Parameters depend on shapes only: one token and any tables will do.
    tables = (jnp.ones((1, 1, head)), jnp.zeros((1, 1, head)))
    patches = jnp.zeros((1, 1, config.patch_values))
    encoder = Encoder(config).init(encoder_key, patches, tables)["params"]
    tables = (jnp.ones((1, 2, narrow)), jnp.zeros((1, 2, narrow)))
    context = jnp.zeros((1, 1, config.feature_dim))
    predictor = Predictor(config).init(predictor_key, context, tables, 0)["params"]
    return {
        "encoder": _scale_residuals(cast(Params, encoder)),
        "predictor": _scale_residuals(cast(Params, predictor)),
    }


def _scale_residuals(params: Params) -> Params:
    layers = dict(params["layers"])
    for name in ("out", "fc2"):
        kernel = layers[name]["kernel"]
        index = jnp.arange(1, kernel.shape[0] + 1, dtype=jnp.float32)
        scaled = kernel / jnp.sqrt(2.0 * index)[:, None, None]
        layers[name] = {**layers[name], "kernel": scaled}
    return {**params, "layers": layers}


def encode(
    config: ModelConfig,
    encoder_params: Params,
    volumes: jax.Array,
    ids: jax.Array | None = None,
    position_scale: jax.Array | None = None,
) -> jax.Array:
    """Encodes all tokens, or only those visible.

    Args:
        config: the model.
        encoder_params: the "encoder" tree.
        volumes: [batch, depth, height, width, channel] float, sized `config.volume`.
        ids: int32 [batch, K] visible tokens; None for all.
        position_scale: optional [batch, 3] factors on positions (see `rope.rope_tables`).

    Returns:
        [batch, K or N, feature_dim] float32.
    """
    patches = patchify(volumes, config.patch)
    return _encode_patches(config, encoder_params, patches, ids, position_scale)


def _encode_patches(config, params, patches, ids, position_scale) -> jax.Array:
    rope = _tables(config, config.encoder.head_dim, position_scale)
    if ids is not None:
        # Before the embedding, so that hidden tokens cost nothing at all.
        patches = gather_tokens(patches, ids)
        rope = (gather_tokens(rope[0], ids), gather_tokens(rope[1], ids))
    return cast(jax.Array, Encoder(config).apply({"params": params}, patches, rope))


def _tables(config: ModelConfig, head_dim: int, position_scale: jax.Array | None):
    return rope_tables(
        config.grid, head_dim, config.rope, config.rope_reference_grid, position_scale
    )


def predict_targets(
    config: ModelConfig,
    predictor_params: Params,
    context: jax.Array,
    context_ids: jax.Array,
    target_ids: jax.Array,
    mask_index: int = 0,
    position_scale: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Features at `target_ids` from `context` features at `context_ids`; see `Predictor`."""
    ids = jnp.concatenate([context_ids, target_ids], axis=1)
    tables = _tables(config, config.predictor.head_dim, position_scale)
    rope = (gather_tokens(tables[0], ids), gather_tokens(tables[1], ids))
    predictor = Predictor(config)
    out = predictor.apply({"params": predictor_params}, context, rope, mask_index)
    return cast(tuple[jax.Array, jax.Array | None], out)


def normalize_targets(features: jax.Array, levels: int) -> jax.Array:
    """LayerNorm without scale and bias over each level's width, float32."""
    shape = features.shape
    x = features.astype(jnp.float32).reshape(*shape[:-1], levels, shape[-1] // levels)
    # The mean goes first: E[x²] - E[x]² would lose its digits in float32 where the mean is large.
    x = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.mean(x * x, axis=-1, keepdims=True)
    return (x * jax.lax.rsqrt(variance + TARGET_EPSILON)).reshape(shape)


def predict(
    config: ModelConfig,
    params: Params,
    target_params: Params,
    volumes: jax.Array,
    masks: Sequence[tuple[jax.Array, jax.Array]],
    position_scale: jax.Array | None = None,
) -> Prediction:
    """Predictions and targets of every mask set; the target encoder runs once for all of them.

    Args:
        config: the model.
        params: {"encoder", "predictor"}; gradients flow into both.
        target_params: {"encoder"}; no gradient.
        volumes: [batch, depth, height, width, channel] float.
        masks: per set (context_ids int32 [batch, K], target_ids int32 [batch, T]).
        position_scale: optional [batch, 3] factors on positions.

    Raises:
        ConfigError: more mask sets than mask tokens.
    """
    if len(masks) > config.mask_tokens:
        raise ConfigError(
            f"{len(masks)} mask sets need as many mask tokens, model.mask_tokens is "
            f"{config.mask_tokens}; raise it"
        )
    patches = patchify(volumes, config.patch)
    target_encoder = jax.lax.stop_gradient(target_params["encoder"])
    features = _encode_patches(config, target_encoder, patches, None, position_scale)
    target = normalize_targets(features, config.levels)
    sets = []
    for index, (context_ids, target_ids) in enumerate(masks):
        context = _encode_patches(config, params["encoder"], patches, context_ids, position_scale)
        prediction, seen = predict_targets(
            config,
            params["predictor"],
            context,
            context_ids,
            target_ids,
            index,
            position_scale,
        )
        sets.append(
            SetPrediction(
                prediction_BxTxD=prediction.astype(jnp.float32),
                target_BxTxD=gather_tokens(target, target_ids),
                target_ids_BxT=target_ids,
                context_ids_BxK=context_ids,
                context_prediction_BxKxD=None if seen is None else seen.astype(jnp.float32),
                context_target_BxKxD=None if seen is None else gather_tokens(target, context_ids),
            )
        )
    return Prediction(tuple(sets), target, features)

"""Closed-form counts against built models and published figures."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from jepa3d.config import MaskConfig
from jepa3d.masks import mask_preset
from jepa3d.model.counts import parameter_counts, seed_parameter_counts, volume_flops
from jepa3d.model.jepa import init_params
from jepa3d.model.presets import MODEL_PRESETS, model_preset
from training.errors import ConfigError


def built_counts(config):
    shapes = jax.eval_shape(lambda key: init_params(key, config), jax.random.key(0))
    return tuple(
        sum(leaf.size for leaf in jax.tree.leaves(shapes[part]))
        for part in ("encoder", "predictor")
    )


@pytest.mark.parametrize("name", sorted(MODEL_PRESETS))
def test_closed_form_equals_the_built_model(name):
    config = model_preset(name)
    assert parameter_counts(config)[:2] == built_counts(config)


def test_closed_form_covers_levels_and_the_context_head():
    config = model_preset("tiny", supervise_layers=(0, 1), context_head=True)
    assert parameter_counts(config)[:2] == built_counts(config)


@pytest.mark.parametrize(
    ("name", "encoder", "predictor"),
    [
        ("jepa3d_s", 21_687_936, 5_487_168),
        ("jepa3d_b", 85_843_200, 21_886_080),
        ("vjepa2_l", 303_885_312, 22_086_016),
    ],
)
def test_presets_have_the_published_counts(name, encoder, predictor):
    counts = parameter_counts(model_preset(name))
    assert counts == (encoder, predictor, encoder)
    assert counts.trainable == encoder + predictor


def test_29m_counts_both_encoders_and_the_320_wide_variant_counts_trainables():
    assert sum(parameter_counts(model_preset("jepa3d_29m"))) == 29_388_416
    assert parameter_counts(model_preset("jepa3d_s_320")).trainable == 29_333_440


def test_predecessor_counts():
    assert sum(seed_parameter_counts()) == 29_456_640
    assert sum(seed_parameter_counts(768, 12)) == 187_024_896
    assert seed_parameter_counts(768, 12).encoder == 92_921_088


@pytest.mark.parametrize(
    ("name", "target", "context", "predictor"),
    [
        ("jepa3d_29m", 0.99, 0.59, 2.74),
        ("jepa3d_s", 1.96, 1.18, 2.64),
        ("jepa3d_b", 4.71, 3.26, 5.87),
    ],
)
def test_operations_per_volume(name, target, context, predictor):
    """TFLOP per volume for one mask set of 3,584 visible and 5,632 predicted tokens."""
    config = model_preset(name)
    flops = volume_flops(config, mask_preset("mask06", config.grid))
    found = [value / 1e12 for value in flops]
    assert found == pytest.approx([target, context, predictor], abs=0.02)


def test_operations_equal_a_count_over_the_matmuls():
    """One volume counted matmul by matmul: 2 m n k each, three passes where gradients flow."""
    config = dataclasses.replace(model_preset("tiny"), mask_tokens=1)
    mask = MaskConfig(context_tokens=10, target_tokens=20)

    def blocks(transformer, tokens):
        d, m = transformer.dim, transformer.hidden
        dense = 2 * tokens * (d * 3 * d + d * d + 2 * d * m)
        return transformer.depth * (dense + 2 * 2 * tokens * tokens * d)

    patch = 2 * config.patch_values * config.encoder.dim
    expected = (
        blocks(config.encoder, 64) + 64 * patch,
        3 * (blocks(config.encoder, 10) + 10 * patch),
        3 * (blocks(config.predictor, 30) + 2 * 48 * 24 * 10 + 2 * 24 * 48 * 20),
    )
    assert tuple(volume_flops(config, [mask])) == pytest.approx(expected)


def test_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="jepa3d_s"):
        model_preset("vit_s")

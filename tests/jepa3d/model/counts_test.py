"""Closed-form counts against built models and published figures."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from jepa3d.config import MaskConfig, ModelConfig, TransformerConfig
from jepa3d.masks import mask_preset
from jepa3d.model.counts import parameter_counts, volume_flops
from jepa3d.model.jepa import init_params


def grayscale(encoder, predictor):
    """A model of OCT volumes of 64 x 384 x 384 voxels."""
    return ModelConfig(encoder=TransformerConfig(*encoder), predictor=TransformerConfig(*predictor))


def video(dim, depth, heads, mlp_ratio=4.0):
    """A published V-JEPA 2: three channels, tubelets of two frames."""
    return ModelConfig(
        volume=(16, 256, 256),
        patch=(2, 16, 16),
        channels=3,
        encoder=TransformerConfig(dim, depth, heads, mlp_ratio),
        predictor=TransformerConfig(384, 12, 12),
        mask_tokens=10,
    )


SIZES = {
    "tiny": ModelConfig(
        volume=(16, 64, 64),
        encoder=TransformerConfig(48, 2, 4),
        predictor=TransformerConfig(24, 2, 2),
    ),
    # Those of docs/jepa3d.md.
    "jepa3d_29m": grayscale((384, 6, 6), (256, 9, 4)),
    "jepa3d_s": grayscale((384, 12, 6), (192, 12, 6)),
    "jepa3d_s_320": grayscale((384, 12, 6), (320, 6, 5)),
    "jepa3d_b": grayscale((768, 12, 12), (384, 12, 12)),
    "vjepa2_l": video(1024, 24, 16),
    "vjepa2_h": video(1280, 32, 16),
    "vjepa2_g": video(1408, 40, 22, 48 / 11),
}


def built_counts(config):
    shapes = jax.eval_shape(lambda key: init_params(key, config), jax.random.key(0))
    return tuple(
        sum(leaf.size for leaf in jax.tree.leaves(shapes[part]))
        for part in ("encoder", "predictor")
    )


@pytest.mark.parametrize("name", sorted(SIZES))
def test_closed_form_equals_the_built_model(name):
    config = SIZES[name]
    assert parameter_counts(config)[:2] == built_counts(config)


def test_closed_form_covers_levels_and_the_context_head():
    config = dataclasses.replace(SIZES["tiny"], supervise_layers=(0, 1), context_head=True)
    assert parameter_counts(config)[:2] == built_counts(config)


@pytest.mark.parametrize(
    ("name", "encoder", "predictor"),
    [
        ("jepa3d_s", 21_687_936, 5_487_168),
        ("jepa3d_b", 85_843_200, 21_886_080),
        ("vjepa2_l", 303_885_312, 22_086_016),
    ],
)
def test_sizes_have_the_published_counts(name, encoder, predictor):
    assert parameter_counts(SIZES[name]) == (encoder, predictor, encoder)


def test_sizes_of_the_documentation():
    assert sum(parameter_counts(SIZES["jepa3d_29m"])) == 29_388_416
    assert sum(parameter_counts(SIZES["jepa3d_s_320"])[:2]) == 29_333_440


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
    config = SIZES[name]
    flops = volume_flops(config, mask_preset("mask06", config.grid))
    found = [value / 1e12 for value in flops]
    assert found == pytest.approx([target, context, predictor], abs=0.02)


def test_operations_equal_a_count_over_the_matmuls():
    """One volume counted matmul by matmul: 2 m n k each, three passes where gradients flow."""
    config = dataclasses.replace(SIZES["tiny"], mask_tokens=1)
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

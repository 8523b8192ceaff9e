"""Parameters and operations of RT-DETR R50 are those that are published."""

from __future__ import annotations

import math

import jax

from rtdetr.config import ModelConfig
from rtdetr.model.counts import flops, parameter_counts, shapes

CONFIG, CLASSES = ModelConfig(), 80
# The reference moves the anchor of every token, we only those of the selected ones.
BOX_HEAD = 2 * (256 * 256 + 256 * 256 + 256 * 4)


def size_of(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_r50_has_the_published_number_of_parameters_in_every_part():
    assert sum(parameter_counts(CONFIG, CLASSES).values()) == 42_891_372
    params, statistics = shapes(CONFIG, CLASSES)
    # Copies: the shapes are cached.
    encoder, decoder = dict(params["encoder"]), dict(params["decoder"])
    inputs = [encoder.pop(name) for name in list(encoder) if name.startswith("input_")]
    assert size_of(params["backbone"]) == 23_474_016
    assert size_of(params["backbone"]["stem"]) == 28_512
    # Scale and bias, mean and variance of every channel of the frozen norms.
    assert size_of(statistics["backbone"]) == 2 * 53_248
    assert size_of(inputs) == 919_040 and size_of(encoder) == 11_031_808
    inputs = [decoder[name] for name in decoder if name.startswith("input_")]
    assert size_of(inputs) == 198_144
    assert size_of(decoder["denoising_classes"]) == 20_736
    tokens = [decoder[name] for name in ("token", "token_norm", "token_score", "token_box")]
    assert size_of(tokens) == 219_476


def test_operations_are_the_published_ones_at_two_sizes():
    for size, published in (((640, 640), 137.1e9), ((1088, 1920), 681.5e9)):
        tokens = sum((size[0] // s) * (size[1] // s) for s in (8, 16, 32))
        skipped = BOX_HEAD * (tokens - CONFIG.decoder.queries)
        assert abs(flops(CONFIG, CLASSES, size) + skipped - published) < 0.01 * published

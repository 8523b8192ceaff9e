"""Closed forms: numbers of parameters and floating-point operations.

With width d and MLP hidden width m a block has 4 d² + 2 d m matmul weights, biases 5 d + m and two
norms of 2 d: 12 d² + 13 d for m = 4 d. Per token and block a forward pass costs 8 d² + 4 d m
operations in matmuls and 4 N d in attention over N tokens; a backward pass costs twice the forward
pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jepa3d.config import MaskConfig, ModelConfig, TransformerConfig


class ParameterCounts(NamedTuple):
    """Scalars in each part; the target encoder is a copy of the encoder and not trained."""

    encoder: int
    predictor: int
    target: int


class VolumeFlops(NamedTuple):
    """Floating-point operations of one training update, per volume."""

    target: float  # forward pass of the target encoder
    context: float  # forward and backward pass of the encoder, all mask sets
    predictor: float  # forward and backward pass of the predictor, all mask sets

    @property
    def total(self) -> float:
        return self.target + self.context + self.predictor


def block_parameters(config: TransformerConfig) -> int:
    """Parameters of one block."""
    d, hidden = config.dim, config.hidden
    return 4 * d * d + 2 * d * hidden + 9 * d + hidden


def parameter_counts(config: ModelConfig) -> ParameterCounts:
    """Parameters of a model without building it."""
    d, narrow, features = config.encoder.dim, config.predictor.dim, config.feature_dim
    encoder = config.encoder.depth * block_parameters(config.encoder)
    encoder += config.patch_values * d + d + 2 * d * config.levels
    predictor = config.predictor.depth * block_parameters(config.predictor)
    predictor += (d + 1) * narrow + (narrow + 1) * features * (2 if config.context_head else 1)
    predictor += 2 * narrow + config.mask_tokens * narrow
    if config.levels > 1:
        predictor += (features + 1) * d
    return ParameterCounts(encoder, predictor, encoder)


def forward_flops(config: TransformerConfig, tokens: int) -> float:
    """Operations of one forward pass of the blocks over `tokens` tokens."""
    d = config.dim
    per_token = 8 * d * d + 4 * d * config.hidden + 4 * tokens * d
    return float(config.depth * tokens * per_token)


def volume_flops(config: ModelConfig, masks: Sequence[MaskConfig]) -> VolumeFlops:
    """Analytic operations per volume and update, without recomputation."""
    d, narrow, features = config.encoder.dim, config.predictor.dim, config.feature_dim
    embed = 2 * config.patch_values * d
    target = forward_flops(config.encoder, config.tokens) + embed * config.tokens
    context = predictor = 0.0
    for mask in masks:
        visible, hidden = mask.context_tokens, mask.target_tokens
        context += 3 * forward_flops(config.encoder, visible) + 3 * embed * visible
        fuse = 2 * features * d * visible if config.levels > 1 else 0
        heads = 2 * narrow * features * (hidden + (visible if config.context_head else 0))
        predictor += 3 * (
            forward_flops(config.predictor, visible + hidden)
            + 2 * d * narrow * visible
            + fuse
            + heads
        )
    return VolumeFlops(target, context, predictor)

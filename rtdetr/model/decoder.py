"""The deformable decoder: queries refine their boxes layer by layer.

Deformable DETR (Zhu et al. 2021) with the denoising queries and the second look of DINO (Zhang et
al. 2023). Legend: B batch, N tokens of all maps, D width, Q queries (denoising ones first), K
classes. Boxes are `cxcywh_norm`; a *reference* is the box that a layer starts from. Everything
about boxes is fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rtdetr.boxes import cxcywh_norm
from rtdetr.config import DecoderConfig
from rtdetr.model.deformable_attention import sample_maps
from rtdetr.model.layers import ACTIVATIONS, Attention, ConvNorm, Dense, LayerNorm, Mlp, xavier
from rtdetr.model.query_selection import anchors, pick, select
from rtdetr.targets import DenoisingQueries, DetectorOutput, Predictions

CLAMP = 1e-5  # of a coordinate before its logit
Size = tuple[int, int]


def logit(x: jax.Array) -> jax.Array:
    """Inverse of the sigmoid, within ±11.5."""
    x = jnp.clip(x, 0.0, 1.0)
    return jnp.log(jnp.maximum(x, CLAMP)) - jnp.log(jnp.maximum(1 - x, CLAMP))


class Memory(NamedTuple):
    """What queries look at: tokens `[B, N, D]`, sizes of the maps, bool `[B, N]` (None: all)."""

    tokens: jax.Array
    sizes: tuple[Size, ...]
    valid: jax.Array | None


def offset_bias(heads: int, points: Sequence[int]) -> np.ndarray:
    """Directions of the heads around a circle, farther for each further point of a map."""
    angle = np.arange(heads) * 2 * np.pi / heads
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    direction /= np.abs(direction).max(axis=-1, keepdims=True)
    far = np.concatenate([np.arange(1, count + 1) for count in points])
    return (direction[:, None] * far[None, :, None]).reshape(-1).astype(np.float32)


class DeformableAttention(nn.Module):
    """Each query samples points around its reference in every map."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, query: jax.Array, reference: jax.Array, memory: Memory) -> jax.Array:
        """`[B, Q, D]`; reference `[B, Q, 4]`."""
        config = self.config
        batch, count, width = query.shape
        heads, points = config.heads, config.points
        value = Dense(width, kernel_init=xavier, name="value")(memory.tokens)
        if memory.valid is not None:
            value = jnp.where(memory.valid[..., None], value, 0)
        value = value.reshape(batch, -1, heads, width // heads)
        bias = offset_bias(heads, points)
        zeros = nn.initializers.zeros
        offsets = Dense(
            heads * sum(points) * 2,
            kernel_init=zeros,
            bias_init=lambda *_: jnp.asarray(bias),
            name="offsets",
        )(query).astype(jnp.float32)
        offsets = offsets.reshape(batch, count, heads, sum(points), 2)
        weights = Dense(heads * sum(points), kernel_init=zeros, name="weights")(query)
        weights = weights.astype(jnp.float32).reshape(batch, count, heads, -1)
        weights = jax.nn.softmax(weights, axis=-1)
        # In parts of the box, by the number of points of the map.
        scale = np.concatenate([np.full(n, config.offset_scale / n, np.float32) for n in points])
        center, sides = reference[:, :, None, None, :2], reference[:, :, None, None, 2:]
        locations = center + offsets * scale[None, None, None, :, None] * sides
        cuts = np.cumsum(points)[:-1].tolist()
        tokens = np.cumsum([height * width_ for height, width_ in memory.sizes])[:-1].tolist()
        sampled = sample_maps(
            jnp.split(value, tokens, axis=1),
            memory.sizes,
            jnp.split(locations, cuts, axis=3),
            jnp.split(weights, cuts, axis=3),
            config.sampling,
        )
        return Dense(width, kernel_init=xavier, name="out")(sampled.reshape(batch, count, width))


class DecoderLayer(nn.Module):
    """Queries among themselves, queries on the maps, feed-forward; norms after each sum."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        position: jax.Array,
        reference: jax.Array,
        memory: Memory,
        allowed: jax.Array | None,
    ) -> jax.Array:
        config, placed = self.config, x + position
        attention = Attention(config.heads, name="attention")
        x = LayerNorm(name="attention_norm")(x + attention(placed, placed, x, allowed))
        sampled = DeformableAttention(config, name="sampling")(x + position, reference, memory)
        x = LayerNorm(name="sampling_norm")(x + sampled)
        hidden = Dense(config.feed_forward, name="feed_forward_0")(x)
        hidden = ACTIVATIONS[config.activation](hidden)
        hidden = Dense(config.width, name="feed_forward_1")(hidden)
        return LayerNorm(name="feed_forward_norm")(x + hidden)


class Decoder(nn.Module):
    """Fused maps to detections."""

    config: DecoderConfig
    classes: int

    def setup(self):
        config, levels = self.config, len(self.config.points)
        prior = -float(np.log(1 / config.prior - 1))

        def score_head() -> Dense:
            return Dense(self.classes, bias_init=nn.initializers.constant(prior))

        def box_head() -> Mlp:
            return Mlp((config.width, config.width, 4), zero_last=True)

        self.input = [ConvNorm(config.width) for _ in range(levels)]
        self.token = Dense(config.width, kernel_init=xavier)
        self.token_norm = LayerNorm()
        self.token_score, self.token_box = score_head(), box_head()
        self.denoising_classes = self.param(
            "denoising_classes", _class_table, (self.classes + 1, config.width)
        )
        self.position = Mlp((*config.position_hidden, config.width), kernel_init=xavier)
        self.layer = [DecoderLayer(config) for _ in range(config.layers)]
        self.score = [score_head() for _ in range(config.layers)]
        self.box = [box_head() for _ in range(config.layers)]

    def __call__(
        self,
        maps: Sequence[jax.Array],
        valid: Sequence[jax.Array] | None,
        train: bool,
        denoising: DenoisingQueries | None,
        layers: int,
        queries: int,
    ) -> DetectorOutput:
        memory = self._memory(maps, valid, train)
        selected, content, boxes_logit, scores = self._selected(memory, queries)
        encoder = Predictions(scores, cxcywh_norm(jax.nn.sigmoid(boxes_logit)))
        content, boxes_logit = jax.lax.stop_gradient((content, boxes_logit))
        allowed, extra = None, 0
        if denoising is not None:
            noisy = self.denoising_classes[denoising.classes].astype(content.dtype)
            content = jnp.concatenate([noisy, content], axis=1)
            boxes_logit = jnp.concatenate([denoising.boxes_logit, boxes_logit], axis=1)
            allowed, extra = denoising.allowed, noisy.shape[1]
            # [batch or 1, heads, from, to]
            allowed = allowed[:, None] if allowed.ndim == 3 else allowed[None, None]
        found = self._refined(content, boxes_logit, memory, allowed, train, layers)
        noisy_found = None if denoising is None else _part(found, slice(None, extra))
        return DetectorOutput(_part(found, slice(extra, None)), encoder, noisy_found, selected)

    def _memory(
        self, maps: Sequence[jax.Array], valid: Sequence[jax.Array] | None, train: bool
    ) -> Memory:
        projected = [project(x, train) for project, x in zip(self.input, maps)]
        sizes = tuple((x.shape[1], x.shape[2]) for x in projected)
        tokens = [x.reshape(x.shape[0], -1, x.shape[-1]) for x in projected]
        flat = None
        if valid is not None:
            flat = jnp.concatenate([v.reshape(v.shape[0], -1) for v in valid], axis=1)
        return Memory(jnp.concatenate(tokens, axis=1), sizes, flat)

    def _selected(
        self, memory: Memory, queries: int
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Tokens, content, box logits and class logits of the queries that they become."""
        boxes, usable = anchors(memory.sizes, self.config)
        usable = jnp.asarray(usable)[None]
        if memory.valid is not None:
            usable = usable & memory.valid
        tokens = self.token_norm(self.token(jnp.where(usable[..., None], memory.tokens, 0)))
        logits = self.token_score(tokens.astype(jnp.float32))
        scores = logits.max(axis=-1)
        if not self.config.select_invalid:
            scores = jnp.where(usable, scores, -jnp.inf)
        selected = select(jax.lax.stop_gradient(scores), queries)
        content = pick(tokens, selected)
        start = jnp.where(usable[..., None], logit(jnp.asarray(boxes))[None], NO_ANCHOR)
        start = pick(jnp.broadcast_to(start, (*scores.shape, 4)), selected)
        boxes_logit = self.token_box(content.astype(jnp.float32)) + start
        return selected, content, boxes_logit, pick(logits, selected)

    def _refined(
        self,
        x: jax.Array,
        boxes_logit: jax.Array,
        memory: Memory,
        allowed: jax.Array | None,
        train: bool,
        layers: int,
    ) -> Predictions:
        """Predictions `[layers, B, Q, ...]`."""
        reference = jax.nn.sigmoid(boxes_logit)
        before = reference  # the reference with its gradient
        logits, boxes = [], []
        for number in range(layers):
            position = self.position(reference).astype(x.dtype)
            x = self.layer[number](x, position, reference, memory, allowed)
            wide = x.astype(jnp.float32)
            change = self.box[number](wide)
            refined = jax.nn.sigmoid(change + logit(reference))
            twice = train and self.config.look_forward_twice and number > 0
            boxes.append(jax.nn.sigmoid(change + logit(before)) if twice else refined)
            logits.append(self.score[number](wide))
            before, reference = refined, jax.lax.stop_gradient(refined)
        return Predictions(jnp.stack(logits), cxcywh_norm(jnp.stack(boxes)))


# A logit whose sigmoid is 1 in fp32: what the authors' infinite anchors become.
NO_ANCHOR = 1e4


def _class_table(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Normal vectors; that of the padding, the last one, is zero."""
    return jax.random.normal(key, shape).at[-1].set(0.0)


def _part(found: Predictions, which: slice) -> Predictions:
    return Predictions(found.logits[:, :, which], cxcywh_norm(found.boxes.values[:, :, which]))

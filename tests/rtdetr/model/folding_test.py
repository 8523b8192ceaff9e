"""A folded network has no norms, fewer convolutions and the same output."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.model.backbone import Block
from rtdetr.model.detector import detect
from rtdetr.model.folding import folded
from rtdetr.model.hybrid_encoder import RepVgg
from tests.rtdetr.losses.golden import golden_values
from tests.rtdetr.model.golden import CONFIG, golden_tree, golden_weights
from training.paths import named_leaves


def used(module, channels):
    """Its parameters and statistics as after training: nothing is 0 or 1 any more."""
    draw = np.random.default_rng(0)
    image = jnp.zeros((1, 4, 4, channels))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), image, False))
    # Variances, too, must be positive.
    values = jax.tree.map(lambda leaf: draw.uniform(0.2, 1.0, leaf.shape), shapes)
    values = jax.tree.map(lambda value: value.astype(np.float32), values)
    return values["params"], values["statistics"]


@pytest.mark.parametrize(
    "module",
    [
        RepVgg(),
        Block("bottleneck", 4, 2, True, frozen=True),
        Block("basic", 8, 1, True, frozen=False),
    ],
    ids=["joined", "frozen norms", "trained norms"],
)
def test_a_folded_part_computes_the_same(module):
    params, statistics = used(module, 8)
    image = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 8, 8)), jnp.float32)
    before = module.apply({"params": params, "statistics": statistics}, image, False)
    after = module.apply({"params": folded(params, statistics)}, image, False)
    # Sums of at most 9 * 8 products, three in a row, in another order.
    bound = float(3 * 72 * jnp.finfo(jnp.float32).eps * jnp.abs(before).max())
    np.testing.assert_allclose(after, before, atol=bound)
    assert float(jnp.std(before)) > 1000 * bound


def test_two_convolutions_side_by_side_become_one():
    params, statistics = used(RepVgg(), 8)
    shapes = {path: leaf.shape for path, leaf in named_leaves(folded(params, statistics)).items()}
    assert shapes == {"one/kernel": (3, 3, 8, 8), "one/bias": (8,)}


def test_a_folded_network_does_not_train_and_is_not_folded_again():
    params, statistics = used(RepVgg(), 8)
    once = folded(params, statistics)
    with pytest.raises(ValueError, match="does not train"):
        RepVgg().apply({"params": once}, jnp.zeros((1, 4, 4, 8)), True)
    with pytest.raises(ValueError, match="no norms to fold"):
        folded(once, {})


def test_a_whole_folded_network_still_agrees_with_the_reference(data_root):
    values, tree = golden_values(data_root), golden_tree(golden_weights(data_root))
    params = folded(tree["params"], tree["statistics"])
    assert not any("/norm/" in f"/{path}" for path in named_leaves(params))
    output, _ = jax.jit(lambda p, x: detect(CONFIG, p, {}, x, train=False))(
        params, values["image_uint8_nhwc"]
    )
    np.testing.assert_array_equal(output.selected, values["eval/topk_index"])
    np.testing.assert_allclose(output.decoder.logits, values["eval/dec_logits"], atol=1e-4)
    np.testing.assert_allclose(output.decoder.boxes.values, values["eval/dec_boxes"], atol=1e-5)

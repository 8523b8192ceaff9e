"""The network gives what an independent implementation gives, on a rectangle (128 × 160)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.config import LossConfig
from rtdetr.losses.criterion import criterion, terms
from rtdetr.model.backbone import Backbone
from rtdetr.model.detector import detect, init, network_input
from rtdetr.model.hybrid_encoder import HybridEncoder
from rtdetr.weights.names import entries
from tests.rtdetr.losses.golden import LAYERS, golden_denoising, golden_targets, golden_values
from tests.rtdetr.model.golden import CONFIG, golden_tree, golden_weights


@pytest.fixture(scope="module")
def values(data_root):
    return golden_values(data_root)


@pytest.fixture(scope="module")
def tree(data_root):
    return golden_tree(golden_weights(data_root))


def relative(found, wanted):
    """Largest difference over the largest value."""
    return float(np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max())


def test_every_array_of_the_reference_has_one_place_of_the_right_shape(data_root, tree):
    names = {name for name in golden_weights(data_root) if "num_batches_tracked" not in name}
    assert [e.name for e in entries(CONFIG)] == list(dict.fromkeys(e.name for e in entries(CONFIG)))
    assert {e.name for e in entries(CONFIG)} == names
    params, statistics = jax.eval_shape(lambda key: init(key, CONFIG, 80), jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: leaf.shape, {"params": params, "statistics": statistics})
    assert jax.tree.map(lambda leaf: leaf.shape, tree) == shapes


def test_feature_maps_agree_to_1e_5(values, tree):
    def maps(tree, images):
        def part(name):
            return {"params": tree["params"][name], "statistics": tree["statistics"][name]}

        x = network_input(images, None, CONFIG)
        levels = Backbone(CONFIG.backbone).apply(part("backbone"), x, False)
        return levels, HybridEncoder(CONFIG.encoder).apply(part("encoder"), levels, None, False)

    backbone, encoder = jax.jit(maps)(tree, values["image_uint8_nhwc"])
    for level in range(3):
        assert relative(backbone[level], values[f"backbone_c{level + 3}"]) < 1e-5
        assert relative(encoder[level], values[f"encoder_p{level + 3}"]) < 1e-5


@pytest.mark.parametrize("mode", ["eval", "dn"])
def test_selection_is_exact_and_logits_and_boxes_agree_to_1e_4(values, tree, mode):
    denoising = golden_denoising(values) if mode == "dn" else None
    output, _ = jax.jit(
        lambda tree, images: detect(
            CONFIG,
            tree["params"],
            tree["statistics"],
            images,
            train=False,
            denoising=denoising,
        )
    )(tree, values["image_uint8_nhwc"])
    np.testing.assert_array_equal(output.selected, values["eval/topk_index"])
    logits, boxes = output.decoder.logits, output.decoder.boxes.values
    if output.denoising is not None:
        logits = jnp.concatenate([output.denoising.logits, logits], axis=2)
        boxes = jnp.concatenate([output.denoising.boxes.values, boxes], axis=2)
    np.testing.assert_allclose(logits, values[f"{mode}/dec_logits"], atol=1e-4)
    np.testing.assert_allclose(boxes, values[f"{mode}/dec_boxes"], atol=1e-5)
    found = output.encoder
    np.testing.assert_allclose(found.logits, values[f"{mode}/enc_topk_logits"], atol=1e-4)
    np.testing.assert_allclose(found.boxes.values, values[f"{mode}/enc_topk_boxes"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eval", "dn"])
def test_norms_of_all_gradients_agree_to_1e_3(values, tree, mode):
    denoising = golden_denoising(values) if mode == "dn" else None
    targets, config = golden_targets(values), LossConfig()
    declared = terms(config, LAYERS)

    def total(params):
        output, _ = detect(
            CONFIG,
            params,
            tree["statistics"],
            values["image_uint8_nhwc"],
            train=False,
            denoising=denoising,
        )
        found = criterion(output, targets, denoising, config).terms
        return sum(declared[name].coefficient * term.mean() for name, term in found.items())

    gradients = {"params": jax.jit(jax.grad(total))(tree["params"])}
    # Theirs holds the vector of the padding. Ours needs not: no empty slot reaches the loss.
    table = gradients["params"]["decoder"]
    table["denoising_classes"] = table["denoising_classes"].at[-1].set(0.0)
    compared = 0
    for entry in entries(CONFIG):
        if entry.path.startswith("statistics") or f"{mode}/gradnorm/{entry.name}" not in values:
            continue
        leaf = gradients
        for key in entry.path.split("/"):
            leaf = leaf[key]
        wanted = float(values[f"{mode}/gradnorm/{entry.name}"])
        assert float(jnp.linalg.norm(leaf)) == pytest.approx(wanted, rel=1e-3, abs=1e-5), entry.name
        compared += 1
    assert compared > 150

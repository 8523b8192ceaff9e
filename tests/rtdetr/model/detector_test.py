"""The network as a whole: padding, dials, denoising queries, starting values, precision."""

from __future__ import annotations

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.boxes import cxcywh_norm
from rtdetr.config import STRIDES, DenoisingConfig, ModelConfig
from rtdetr.denoising import make_queries
from rtdetr.model.backbone import Backbone
from rtdetr.model.decoder import Decoder, offset_bias
from rtdetr.model.detector import detect, init, network_input, valid_tokens
from rtdetr.model.query_selection import anchors
from rtdetr.targets import Targets
from tests.rtdetr.model.tiny import CANVAS, CLASSES, CONFIG, changed, some_images, stirred
from training.errors import ConfigError

SIZES = tuple((CANVAS[0] // stride, CANVAS[1] // stride) for stride in STRIDES)
CONTENT = np.array([[40, 96], [64, 56]], np.int32)  # below one image, right of the other
traced = []


@partial(jax.jit, static_argnums=0, static_argnames=("train", "layers", "queries"))
def _compiled(*case, **how):
    traced.append(how)
    return detect(*case, **how)


def compiled(config, params, statistics, images, content=None, **how):
    """As `detect`; each form is compiled once for all tests."""
    return _compiled(config, params, statistics, images, content, **how)


pytestmark = pytest.mark.usefixtures("quick_compilation")


@cache
def weights(config=CONFIG):
    params, statistics = jax.jit(init, static_argnums=(1, 2))(jax.random.key(7), config, CLASSES)
    return stirred(params), statistics


def answers(images, content=CONTENT, config=CONFIG, **how):
    output, _ = compiled(config, *weights(), images, content, train=False, **how)
    return output


def noisy_queries(config=CONFIG, images=2):
    boxes = np.random.default_rng(2).uniform(0.2, 0.4, (images, 3, 4)).astype(np.float32)
    labels = np.array([[0, 2, -1], [-1, -1, -1]], np.int32)[:images]
    return make_queries(
        jax.random.split(jax.random.key(3), images),
        Targets(cxcywh_norm(jnp.asarray(boxes)), jnp.asarray(labels)),
        DenoisingConfig(slots=4),
        CLASSES,
        config.decoder.queries,
    )


def same(left, right, compare=np.testing.assert_array_equal):
    jax.tree.map(compare, left, right)


close = partial(np.testing.assert_allclose, atol=2e-5)


def test_what_lies_in_the_padding_changes_nothing_and_is_never_selected():
    images, other = some_images(), some_images(seed=99)
    inside = np.zeros((2, *CANVAS, 1), bool)
    for image, (height, width) in enumerate(CONTENT):
        inside[image, :height, :width] = True
    found = answers(images)
    same(found, answers(np.where(inside, images, other)))
    valid = np.concatenate([np.asarray(v).reshape(2, -1) for v in valid_tokens(CONTENT, CANVAS)], 1)
    assert np.take_along_axis(valid, np.asarray(found.selected), axis=1).all()
    # Without a mask the padding is an object like others.
    unmasked = answers(images, np.array([CANVAS] * 2, np.int32)).decoder.logits
    assert float(jnp.abs(unmasked - found.decoder.logits).max()) > 1e-2


def test_the_decoder_samples_nothing_of_the_padding_of_its_maps():
    params = {"params": weights()[0]["decoder"], "statistics": weights()[1]["decoder"]}
    # Points lie so far from their boxes that many are in the padding.
    decoder = Decoder(changed(offset_scale=4.0).decoder, CLASSES)
    draw = np.random.default_rng(13)
    maps = [draw.normal(size=(2, *size, 16)).astype(np.float32) for size in SIZES]
    valid = [np.asarray(inside) for inside in valid_tokens(CONTENT, CANVAS)]
    other = [np.where(inside[..., None], x, 7.0) for x, inside in zip(maps, valid)]

    @jax.jit
    def found(maps, valid):
        return decoder.apply(params, maps, valid, False, None, 2, 8)

    same(found(maps, valid), found(other, valid))
    for part in (found(maps, valid), found(other, valid)):
        assert np.isfinite(part.decoder.logits).all()


def test_a_token_belongs_to_the_image_where_its_cell_begins_inside():
    for stride, valid in zip(STRIDES, valid_tokens(CONTENT, CANVAS)):
        for image, (height, width) in enumerate(CONTENT):
            wanted = np.zeros([side // stride for side in CANVAS], bool)
            wanted[: -(-height // stride), : -(-width // stride)] = True
            np.testing.assert_array_equal(valid[image], wanted)


def test_padding_is_zero_after_the_normalization():
    config = dataclasses.replace(CONFIG, input_norm="imagenet")
    x = np.asarray(network_input(some_images(), jnp.asarray(CONTENT), config))
    assert not x[0, 40:].any() and not x[1, :, 56:].any()
    gray = np.full((1, *CANVAS, 3), 255, np.uint8)
    white = np.asarray(network_input(gray, None, config))[0, 0, 0]
    np.testing.assert_allclose(white, [2.2489, 2.4286, 2.64], atol=1e-4)


def test_a_full_canvas_is_the_same_with_and_without_a_mask():
    images = some_images()
    same(answers(images, None), answers(images, np.array([CANVAS] * 2, np.int32)), close)


def test_fewer_layers_answer_as_the_first_ones_do():
    images = some_images()
    few, all_ = answers(images, layers=1).decoder, answers(images).decoder
    same(few.logits[0], all_.logits[0], close)
    assert few.logits.shape[0] == 1 and all_.logits.shape[0] == 2


def test_more_queries_start_with_those_of_fewer():
    images = some_images()
    few, more = answers(images), answers(images, queries=20)
    assert more.decoder.logits.shape == (2, 2, 20, CLASSES)
    np.testing.assert_array_equal(more.selected[:, :8], few.selected)
    same(more.encoder.boxes.values[:, :8], few.encoder.boxes.values, close)


def test_denoising_queries_change_no_other_answer_and_empty_slots_none_at_all():
    images, queries = some_images(), noisy_queries()
    plain, noisy = answers(images), answers(images, denoising=queries)
    same(noisy.decoder, plain.decoder, close)
    same(noisy.encoder, plain.encoder, close)
    assert noisy.denoising.logits.shape == (2, 2, 8, CLASSES)
    # Whatever stands in a slot that is not used.
    classes = jnp.where(queries.used, queries.classes, 0)
    boxes = jnp.where(queries.used[..., None], queries.boxes_logit, 1.0)
    other = answers(
        images, denoising=dataclasses.replace(queries, classes=classes, boxes_logit=boxes)
    )
    used = np.asarray(queries.used)
    for left, right in zip(jax.tree.leaves(other.denoising), jax.tree.leaves(noisy.denoising)):
        close(np.asarray(left)[:, used], np.asarray(right)[:, used])
    # Negatives of the same object in the same group are seen.
    first = used & (np.cumsum(used, axis=1) == 1)
    classes = jnp.where(first, (queries.classes + 1) % CLASSES, queries.classes)
    seen = answers(images, denoising=dataclasses.replace(queries, classes=classes)).denoising
    assert not np.allclose(seen.logits[:, used & ~first], noisy.denoising.logits[:, used & ~first])


@pytest.fixture(scope="module")
def slopes_of_last_boxes():
    """For "look twice" or not: derivative of the boxes of the second layer by the decoder's."""
    params = {"params": weights()[0]["decoder"], "statistics": weights()[1]["decoder"]}
    draw = np.random.default_rng(6)
    maps = [draw.normal(size=(1, *size, 16)).astype(np.float32) for size in SIZES]

    def slopes(twice):
        decoder = Decoder(changed(look_forward_twice=twice).decoder, CLASSES)

        def total(params):
            output, _ = decoder.apply(params, maps, None, True, None, 2, 8, mutable=["statistics"])
            return jnp.sum(output.decoder.boxes.values[1])

        return jax.jit(jax.grad(total))(params)["params"]

    return {twice: slopes(twice) for twice in (True, False)}


def test_boxes_train_the_layer_before_where_they_look_twice_only(slopes_of_last_boxes):
    def largest(twice, name):
        tree = slopes_of_last_boxes[twice][name]
        return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))

    assert largest(True, "box_0") > 1e-3
    assert largest(False, "box_0") == 0
    for twice in (True, False):
        assert largest(twice, "box_1") > 1e-3 and largest(twice, "layer_0") > 1e-4
        # The selected tokens are trained by their own loss, never by that of the decoder.
        for name in ("token", "token_box", "token_score"):
            assert largest(twice, name) == 0


def test_looking_twice_changes_no_value():
    images = some_images()
    outputs = [
        compiled(changed(look_forward_twice=twice), *weights(), images, train=True)[0]
        for twice in (True, False)
    ]
    same(*outputs, close)


def test_statistics_move_in_training_only():
    params, statistics = weights()
    _, kept = compiled(CONFIG, params, statistics, some_images(), None, train=False)
    same(kept, statistics)
    _, moved = compiled(CONFIG, params, statistics, some_images(), None, train=True)
    means = [leaf for path, leaf in jax.tree.leaves_with_path(moved) if "mean" in str(path[-1])]
    assert len(means) > 20 and all(np.asarray(leaf).any() for leaf in means)
    assert jax.tree.structure(moved) == jax.tree.structure(statistics)


def test_in_bfloat16_boxes_logits_statistics_and_slopes_stay_float32():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")

    def total(params):
        found = detect(config, params, weights()[1], some_images(), CONTENT, train=True)
        return jnp.sum(found[0].decoder.logits), found

    kinds = jax.eval_shape(jax.value_and_grad(total, has_aux=True), weights()[0])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(kinds)} == {"float32", "int32"}
    found, wide = answers(some_images(), config=config), answers(some_images())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert 0 < float(jnp.abs(found.encoder.logits - wide.encoder.logits).max()) < 0.3


@cache
def slopes_of_backbone(remat, frozen):
    """Derivatives of a loss on the coarsest map by the backbone's parameters, and their program."""
    backbone = Backbone(dataclasses.replace(CONFIG.backbone, freeze_stem=frozen), remat)
    kept = {"statistics": weights()[1]["backbone"]}
    image = some_images(1, canvas=(32, 32)).astype(np.float32) / 255

    def total(params):
        return jnp.sum(jnp.square(backbone.apply(kept | {"params": params}, image, False)[2]))

    params = weights()[0]["backbone"]
    program = jax.jit(jax.grad(total)).trace(params)
    return program.lower().compile()(params), str(program.jaxpr)


def test_recomputed_stages_give_the_same_slopes():
    (again, graph), (kept, plain) = (slopes_of_backbone(remat, False) for remat in (True, False))
    assert "remat" in graph and "remat" not in plain
    same(again, kept, partial(close, rtol=1e-4))


def test_a_new_network_answers_with_its_anchors_and_its_prior():
    params, statistics = jax.jit(init, static_argnums=(1, 2))(jax.random.key(1), CONFIG, CLASSES)
    output, _ = compiled(CONFIG, params, statistics, some_images(), None, train=True)
    boxes, _ = anchors(SIZES, CONFIG.decoder)
    wanted = boxes[np.asarray(output.selected)]
    np.testing.assert_allclose(output.encoder.boxes.values, wanted, atol=1e-6)
    # All layers of the decoder start with the box that they were given.
    for layer in output.decoder.boxes.values:
        np.testing.assert_allclose(layer, wanted, atol=1e-5)
    decoder = params["decoder"]
    for name in ("token_score", "score_0", "score_1"):
        np.testing.assert_allclose(decoder[name]["bias"], -np.log(99), rtol=1e-6)
    assert not np.asarray(decoder["denoising_classes"][-1]).any()
    assert float(jnp.std(decoder["denoising_classes"][:-1])) > 0.5
    for name in ("offsets", "weights"):
        assert not np.asarray(decoder["layer_0"]["sampling"][name]["kernel"]).any()


def test_heads_look_into_different_directions_and_points_ever_farther():
    bias = offset_bias(8, (4, 2)).reshape(8, 6, 2)
    np.testing.assert_allclose(np.abs(bias).max(-1), np.tile([1, 2, 3, 4, 1, 2], (8, 1)), rtol=1e-6)
    np.testing.assert_allclose(bias[0, 0], [1, 0], atol=1e-6)
    np.testing.assert_allclose(bias[1, 0], [1, 1], rtol=1e-6)
    np.testing.assert_allclose(bias[2, 3], [0, 4], atol=1e-6)


def test_a_batch_of_other_images_compiles_nothing_new():
    answers(some_images())
    before = len(traced)
    for seed in (1, 2):
        answers(some_images(seed=seed), np.full((2, 2), 32 * seed, np.int32))
    assert len(traced) == before > 0


@pytest.mark.parametrize(
    "canvas, how, words",
    [
        ((64, 100), {}, "multiples of 32"),
        ((32, 32), dict(queries=22), "22 queries are more than the 21 tokens"),
        ((64, 64), dict(layers=3), "3 decoder layers"),
    ],
)
def test_what_the_network_cannot_do_is_refused(canvas, how, words):
    with pytest.raises(ConfigError, match=words):
        detect(CONFIG, *weights(), some_images(canvas=canvas), train=False, **how)


@pytest.mark.parametrize("frozen", [True, False])
def test_nothing_flows_back_into_a_frozen_stem(frozen):
    slopes, _ = slopes_of_backbone(False, frozen)
    for name, stays in (("stem", frozen), ("stage_0", False)):
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes[name]))
        assert largest == 0 if stays else largest > 1e-6


def test_a_frozen_backbone_has_no_norm_to_train_and_a_thawed_one_has():
    frozen, thawed = (
        jax.eval_shape(partial(init, config=config, classes=2), jax.random.key(0))
        for config in (ModelConfig(), CONFIG)
    )
    assert "norm" not in frozen[0]["backbone"]["stem"]["conv_0"]
    assert set(frozen[1]["backbone"]["stem"]["conv_0"]["norm"]) == {"mean", "var", "scale", "bias"}
    assert set(thawed[0]["backbone"]["stem"]["conv_0"]["norm"]) == {"scale", "bias"}

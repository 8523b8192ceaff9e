"""The criterion: golden losses, formulas written out, and what must not change it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rtdetr.boxes import Boxes, BoxFormatError, cxcywh_norm
from rtdetr.config import DenoisingConfig, LossConfig
from rtdetr.losses.assignment import query_of_object
from rtdetr.losses.criterion import NAMES, criterion, terms
from rtdetr.targets import DenoisingQueries, DetectorOutput, Predictions, Targets
from tests.rtdetr.losses import golden
from training.errors import ConfigError

CONFIG = LossConfig()
IMAGES, QUERIES, CLASSES, OBJECTS, LAYERS = 8, 6, 5, 4, 2
compiled = jax.jit(criterion, static_argnums=3)


def values_of(found, config=CONFIG, layers=3):
    declared = terms(config, layers)
    return {name: float(declared[name].bounded(t).mean()) for name, t in found.terms.items()}


@pytest.fixture
def batch():
    draw = np.random.default_rng(17)
    counts = [0, 1, 2, 3, 4, 4, 1, 2]
    targets = golden.random_targets(draw, counts, OBJECTS, CLASSES)
    return golden.random_output(draw, LAYERS, IMAGES, QUERIES, CLASSES), targets


@pytest.mark.parametrize("mode", ["eval", "dn"])
def test_losses_are_the_golden_ones(data_root, mode):
    reference = golden.golden_values(data_root)
    targets = golden.golden_targets(reference)
    denoising = golden.golden_denoising(reference) if mode == "dn" else None
    found = compiled(golden.golden_output(reference, mode), targets, denoising, CONFIG)
    ours, declared = values_of(found), terms(CONFIG, golden.LAYERS)
    for name, key in zip(NAMES, ("vfl", "bbox", "giou")):
        weight = declared[name].coefficient
        sets = {
            "": [
                "",
            ],
            "_layers": ["_aux_0", "_aux_1"],
            "_encoder": ["_aux_2"],
        }
        if mode == "dn":
            sets["_denoising"] = ["_dn_0", "_dn_1", "_dn_2"]
        for suffix, parts in sets.items():
            expected = sum(reference[f"{mode}/loss/loss_{key}{part}"] for part in parts)
            assert weight * ours[name + suffix] == pytest.approx(expected, rel=1e-4), name + suffix
    total = sum(declared[name].coefficient * value for name, value in ours.items())
    assert total == pytest.approx(float(reference[f"{mode}/loss_total"]), rel=1e-4)


def test_assignment_is_the_golden_one(data_root):
    reference = golden.golden_values(data_root)
    targets = golden.golden_targets(reference)
    found = compiled(golden.golden_output(reference, "eval"), targets, None, CONFIG)
    expected = reference["eval/match_query_for_gt_last_layer"]
    np.testing.assert_array_equal(query_of_object(found.assigned[-2], 7), expected)


def corners(box):
    x, y, width, height = (box[..., i] for i in range(4))
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def overlaps(a, b):
    """IoU and GIoU of two float64 boxes, written out."""
    (a0, a1, a2, a3), (b0, b1, b2, b3) = corners(a), corners(b)
    shared = max(min(a2, b2) - max(a0, b0), 0) * max(min(a3, b3) - max(a1, b1), 0)
    union = (a2 - a0) * (a3 - a1) + (b2 - b0) * (b3 - b1) - shared
    hull = (max(a2, b2) - min(a0, b0)) * (max(a3, b3) - min(a1, b1))
    return shared / union, shared / union - (hull - union) / hull


def written_out(logits, boxes, targets, owner, config):
    """Sums of the three terms of one set and one image, by loops in float64."""
    class_sum = l1 = giou = 0.0
    for query, (row, box) in enumerate(zip(logits.astype(np.float64), boxes.astype(np.float64))):
        q, label = 0.0, -1
        if owner[query] >= 0:
            target = np.asarray(targets.boxes.values)[owner[query]].astype(np.float64)
            label = int(targets.labels[owner[query]])
            q, generalized = overlaps(box, target)
            l1 += np.abs(box - target).sum()
            giou += 1 - generalized
        for k, p in enumerate(1 / (1 + np.exp(-row))):
            hit = k == label
            if config.classification == "vfl":
                weight, t = (q, q) if hit else (config.alpha * p**config.gamma, 0.0)
            else:
                weight, t = (1.0, q**config.gamma) if hit else (p**config.gamma, 0.0)
            class_sum -= weight * (t * np.log(p) + (1 - t) * np.log(1 - p))
    return np.array([class_sum, l1, giou])


@pytest.mark.parametrize(
    "config", [CONFIG, LossConfig(classification="mal", gamma=1.5)], ids=["vfl", "mal"]
)
def test_terms_are_the_formulas_written_out(batch, config):
    output, targets = batch
    found = compiled(output, targets, None, config)
    owners = np.asarray(found.assigned)
    sums = np.zeros((LAYERS + 1, 3))
    for number, sums_of_set in enumerate(sums):
        chosen = jax.tree.map(lambda x: x[number], output.decoder)  # noqa: B023
        chosen = output.encoder if number == LAYERS else chosen
        for image in range(IMAGES):
            one = jax.tree.map(lambda x: x[image], targets)  # noqa: B023
            logits, boxes = np.asarray(chosen.logits[image]), np.asarray(chosen.boxes.values[image])
            sums_of_set += written_out(logits, boxes, one, owners[number, image], config)
    expected = {"": sums[1], "_layers": sums[0], "_encoder": sums[2]}
    objects = float(targets.count.sum())
    for suffix, three in expected.items():
        for name, value in zip(NAMES, three):
            total = found.terms[name + suffix]
            assert float(total.weight) == objects
            # 240 fp32 addends, none negative: relative rounding below 240 eps.
            assert float(total.sum) == pytest.approx(value, rel=240 * 1.2e-7), name + suffix
    layer = found.metrics["loss_layer/0/l1"].mean()
    assert float(layer) == pytest.approx(sums[0][1] / objects, rel=1e-5)


def close(a, b):
    for name in a.terms:
        assert float(a.terms[name].weight) == float(b.terms[name].weight)
        assert float(a.terms[name].sum) == pytest.approx(float(b.terms[name].sum), rel=1e-5), name


def test_order_of_the_objects_does_not_matter(batch):
    output, targets = batch
    order = np.tile(np.arange(OBJECTS), (IMAGES, 1))
    for row, count in zip(order, np.asarray(targets.count)):
        row[:count] = row[:count][::-1]
    values = jnp.take_along_axis(targets.boxes.values, order[..., None], 1)
    turned = Targets(cxcywh_norm(values), jnp.take_along_axis(targets.labels, order, 1))
    close(compiled(output, targets, None, CONFIG), compiled(output, turned, None, CONFIG))


def test_amount_of_padding_does_not_matter(batch):
    output, targets = batch
    # Not zeros: whatever lies in the padding must have no effect.
    boxes = jnp.pad(targets.boxes.values, ((0, 0), (0, 2), (0, 0)), constant_values=0.25)
    labels = jnp.pad(targets.labels, ((0, 0), (0, 2)), constant_values=-1)
    padded = Targets(cxcywh_norm(boxes), labels)
    close(compiled(output, targets, None, CONFIG), compiled(output, padded, None, CONFIG))


def test_eight_devices_find_what_one_finds(batch):
    output, targets = batch
    alone = compiled(output, targets, None, CONFIG)
    mesh = jax.make_mesh((8, 1), ("data", "fsdp"), (jax.sharding.AxisType.Auto,) * 2)

    def spread(tree, lead):
        rows = PartitionSpec(*lead, ("data", "fsdp"))
        return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, rows)), tree)

    with jax.set_mesh(mesh):
        there = DetectorOutput(
            spread(output.decoder, (None,)),
            spread(output.encoder, ()),
            None,
            spread(output.selected, ()),
        )
        together = jax.jit(criterion, static_argnums=3)(there, spread(targets, ()), None, CONFIG)
    np.testing.assert_array_equal(alone.assigned, together.assigned)
    close(alone, together)


def total_loss(sets, targets, config=CONFIG):
    decoder, encoder = sets
    output = DetectorOutput(decoder, encoder, None, jnp.zeros((IMAGES, QUERIES), jnp.int32))
    found = criterion(output, targets, None, config)
    declared = terms(config, LAYERS)
    return sum(
        declared[name].coefficient * declared[name].bounded(total).mean()
        for name, total in found.terms.items()
    )


def test_a_batch_without_objects_teaches_what_is_nothing():
    draw = np.random.default_rng(2)
    targets = golden.random_targets(draw, [0, 0], OBJECTS, CLASSES)
    output = golden.random_output(draw, LAYERS, 2, QUERIES, CLASSES)
    sets = output.decoder, output.encoder
    loss, gradient = jax.jit(jax.value_and_grad(total_loss))(sets, targets)
    assert np.isfinite(loss) and loss > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert (np.asarray(gradient[0].logits) > 0).all(), "every score is pushed down"
    assert not np.asarray(gradient[0].boxes.values).any()


def test_degenerate_boxes_have_finite_gradients(batch):
    output, targets = batch
    flat = output.decoder.boxes.values.at[:, :, :2, 2:].set(0.0)
    flat = flat.at[:, :, 2].set(targets.boxes.values[None, :, 0])  # exactly the object, or nothing
    decoder = Predictions(output.decoder.logits, cxcywh_norm(flat))
    gradient = jax.jit(jax.grad(total_loss))((decoder, output.encoder), targets)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_query_that_is_no_number_is_matched_last_and_counted(batch):
    output, targets = batch
    logits = output.decoder.logits.at[-1, 3, 2].set(jnp.nan)
    boxes = output.decoder.boxes.values.at[-1, 4, 1].set(jnp.inf)
    decoder = Predictions(logits, cxcywh_norm(boxes))
    broken = dataclasses.replace(output, decoder=decoder)
    found = compiled(broken, targets, None, CONFIG)
    assert int(found.assigned[-2, 3, 2]) == -1 and int(found.assigned[-2, 4, 1]) == -1
    counts = np.asarray(targets.count)
    assert float(found.metrics["nonfinite_costs"].mean()) == counts[3] + counts[4]
    assert float(found.metrics["unmatched"].mean()) == 0


def test_half_precision_predictions_are_computed_in_float32(batch):
    output, targets = batch
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), output.decoder)
    encoder = jax.tree.map(lambda x: x.astype(jnp.bfloat16), output.encoder)
    rough = dataclasses.replace(output, decoder=half, encoder=encoder)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (half, encoder))
    exact = dataclasses.replace(output, decoder=wide[0], encoder=wide[1])
    a, b = (compiled(x, targets, None, CONFIG) for x in (rough, exact))
    close(a, b)
    assert {total.sum.dtype for total in a.terms.values()} == {jnp.dtype("float32")}


def test_boxes_in_pixels_are_refused_when_traced(batch):
    output, targets = batch
    size = jnp.full((IMAGES, QUERIES, 2), 640)
    pixels = Boxes(output.encoder.boxes.values, size, "xyxy_px")
    wrong = dataclasses.replace(output, encoder=Predictions(output.encoder.logits, pixels))
    with pytest.raises(BoxFormatError, match="needs boxes in the format cxcywh_norm"):
        jax.eval_shape(lambda o: criterion(o, targets, None, CONFIG).terms, wrong)


def test_objects_that_no_right_data_has_are_counted(batch):
    output, targets = batch
    values = targets.boxes.values.at[2, 0].set(jnp.array([320.0, 200.0, 64.0, 80.0]))
    labels = targets.labels.at[3, 1].set(CLASSES)
    labels = labels.at[5, 0].set(-1)  # padding before objects; the last of them lies beyond
    wrong = Targets(cxcywh_norm(values), labels)
    sound = compiled(output, targets, None, CONFIG).metrics["invalid_objects"].mean()
    found = compiled(output, wrong, None, CONFIG).metrics["invalid_objects"].mean()
    assert float(sound) == 0 and float(found) == 3


def test_declared_terms_follow_the_model():
    assert set(terms(CONFIG, 1)) == {
        f"{name}{part}" for name in NAMES for part in ("", "_encoder", "_denoising")
    }
    without = LossConfig(denoising=DenoisingConfig(slots=0), l1_weight=7.0)
    assert set(terms(without, 2)) == {
        f"{name}{part}" for name in NAMES for part in ("", "_layers", "_encoder")
    }
    assert terms(without, 2)["l1_layers"].coefficient == 7.0


def test_denoising_on_one_side_only_is_refused(data_root):
    reference = golden.golden_values(data_root)
    targets = golden.golden_targets(reference)
    with pytest.raises(ConfigError, match="pass the same DenoisingQueries to both"):
        criterion(golden.golden_output(reference, "dn"), targets, None, CONFIG)


def denoised(batch, used):
    """A denoising query for each query: the first two of each image stand for its first object."""
    output, targets = batch
    target = np.full((IMAGES, QUERIES), -1, np.int32)
    target[1:, :2] = 0  # image 0 has no object
    queries = DenoisingQueries(
        classes=jnp.zeros((IMAGES, QUERIES), jnp.int32),
        boxes_logit=jnp.zeros((IMAGES, QUERIES, 4)),
        target=jnp.asarray(target),
        used=jnp.asarray(used),
        allowed=jnp.ones((1, 1), bool),
    )
    answered = dataclasses.replace(output, denoising=output.decoder)
    return compiled(answered, targets, queries, CONFIG).terms


def test_empty_denoising_slots_have_no_loss_and_positives_are_the_divisor(batch):
    everything = np.ones((IMAGES, QUERIES), bool)
    some = everything & (np.arange(QUERIES) != 1)  # a positive of each image is left out
    all_terms, some_terms = denoised(batch, everything), denoised(batch, some)
    assert float(all_terms["class_denoising"].weight) == 2 * (IMAGES - 1)
    assert float(some_terms["l1_denoising"].weight) == IMAGES - 1
    output, targets = batch
    expected = np.zeros(3)
    for layer in range(LAYERS):
        for image in range(IMAGES):
            owner = np.full(QUERIES, -1)
            owner[:1] = 0 if image else -1
            kept = [0, 2, 3, 4, 5]
            expected += written_out(
                np.asarray(output.decoder.logits[layer, image])[kept],
                np.asarray(output.decoder.boxes.values[layer, image])[kept],
                jax.tree.map(lambda x: x[image], targets),  # noqa: B023
                owner[kept],
                CONFIG,
            )
    for name, value in zip(NAMES, expected):
        found = float(some_terms[f"{name}_denoising"].sum)
        assert found == pytest.approx(value, rel=240 * 1.2e-7), name


def test_the_classification_loss_does_not_move_boxes(batch):
    output, targets = batch

    def value(boxes):
        decoder = Predictions(output.decoder.logits, cxcywh_norm(boxes))
        found = criterion(dataclasses.replace(output, decoder=decoder), targets, None, CONFIG)
        return found.terms["class"].sum

    assert not np.asarray(jax.jit(jax.grad(value))(output.decoder.boxes.values)).any()

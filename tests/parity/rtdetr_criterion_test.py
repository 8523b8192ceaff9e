"""The criterion against those of the transformers package, on random predictions."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.boxes import cxcywh_norm
from rtdetr.config import LossConfig
from rtdetr.losses.classification import classification_loss
from rtdetr.losses.criterion import NAMES, criterion, terms
from rtdetr.losses.overlap import iou
from rtdetr.targets import DenoisingQueries, DetectorOutput
from tests.rtdetr.losses.golden import predictions, random_boxes, random_output, random_targets

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
rt_detr = pytest.importorskip("transformers.loss.loss_rt_detr")
deimv2 = pytest.importorskip("transformers.loss.loss_deimv2")

LAYERS, IMAGES, QUERIES, CLASSES, OBJECTS = 3, 4, 40, 12, 9
COUNTS = (0, 3, 9, 6)
GROUPS = 2


def tensor(array):
    return torch.tensor(np.asarray(array))


def torch_targets(targets):
    found = []
    for boxes, labels, count in zip(
        targets.boxes.values, targets.labels, np.asarray(targets.count)
    ):
        found.append(
            {"class_labels": tensor(labels[:count]).long(), "boxes": tensor(boxes[:count])}
        )
    return found


@pytest.fixture(scope="module")
def case():
    torch.set_num_threads(1)
    draw = np.random.default_rng(41)
    targets = random_targets(draw, COUNTS, OBJECTS, CLASSES)
    return random_output(draw, LAYERS, IMAGES, QUERIES, CLASSES), targets


def denoising_of(draw, targets):
    """Queries laid out as theirs: groups of positives, then negatives, padded to the fullest."""
    slots = 2 * GROUPS * OBJECTS
    target, places = np.full((IMAGES, slots), -1, np.int32), []
    for image, count in enumerate(COUNTS):
        at = [2 * OBJECTS * g + m for g in range(GROUPS) for m in range(count)]
        target[image, at] = np.tile(np.arange(count), GROUPS)
        places.append(torch.tensor(at, dtype=torch.int64))
    nothing = jnp.zeros((IMAGES, slots), jnp.int32)
    used = jnp.ones((IMAGES, slots), bool)  # their padding is taught to be nothing
    allowed = jnp.ones((1, 1), bool)
    queries = DenoisingQueries(nothing, nothing[..., None], jnp.asarray(target), used, allowed)
    logits = draw.normal(-2, 2, (LAYERS, IMAGES, slots, CLASSES)).astype(np.float32)
    return queries, predictions(logits, random_boxes(draw, LAYERS, IMAGES, slots)), places


def theirs(config, output, targets, places):
    logits, boxes = tensor(output.decoder.logits), tensor(output.decoder.boxes.values)
    split = {}
    if places is not None:
        slots = output.denoising.logits.shape[-2]
        split = {
            "denoising_meta_values": {
                "dn_num_split": [slots, QUERIES],
                "dn_positive_idx": places,
                "dn_num_group": GROUPS,
            }
        }
        logits = torch.cat([tensor(output.denoising.logits), logits], 2)
        boxes = torch.cat([tensor(output.denoising.boxes.values), boxes], 2)
    return rt_detr.RTDetrForObjectDetectionLoss(
        logits[-1],
        torch_targets(targets),
        "cpu",
        boxes[-1],
        config,
        outputs_class=logits.transpose(0, 1),
        outputs_coord=boxes.transpose(0, 1),
        enc_topk_logits=tensor(output.encoder.logits),
        enc_topk_bboxes=tensor(output.encoder.boxes.values),
        **split,
    )


@pytest.mark.parametrize("denoised", [False, True])
def test_every_loss_is_that_of_transformers(case, denoised):
    output, targets = case
    queries = places = None
    if denoised:
        queries, answers, places = denoising_of(np.random.default_rng(43), targets)
        output = DetectorOutput(output.decoder, output.encoder, answers, output.selected)
    config = transformers.RTDetrConfig(num_labels=CLASSES)
    total, parts, _ = theirs(config, output, targets, places)
    found = jax.jit(criterion, static_argnums=3)(output, targets, queries, LossConfig())
    declared = terms(LossConfig(), LAYERS)
    ours = {n: declared[n].coefficient * float(t.mean()) for n, t in found.terms.items()}
    assert sum(ours.values()) == pytest.approx(float(total), rel=1e-5)
    for name, key in zip(NAMES, ("vfl", "bbox", "giou")):
        sets = {"": [""], "_layers": ["_aux_0", "_aux_1"], "_encoder": ["_aux_2"]}
        sets |= {"_denoising": [f"_dn_{i}" for i in range(LAYERS)]} if denoised else {}
        for suffix, keys in sets.items():
            expected = sum(float(parts[f"loss_{key}{part}"]) for part in keys)
            assert ours[name + suffix] == pytest.approx(expected, rel=1e-5), name + suffix


def test_assignment_is_that_of_transformers_and_gradients_agree(case):
    output, targets = case
    config = transformers.RTDetrConfig(num_labels=CLASSES)
    logits = tensor(output.decoder.logits[-1]).requires_grad_()
    boxes = tensor(output.decoder.boxes.values[-1]).requires_grad_()
    loss = rt_detr.RTDetrLoss(config)
    single = {"logits": logits, "pred_boxes": boxes}
    matched = loss.matcher(single, torch_targets(targets))
    sum(loss(single, torch_targets(targets)).values()).backward()

    def ours(logits, boxes):
        last = predictions(logits[None], boxes[None])
        answer = DetectorOutput(last, output.encoder, None, output.selected)
        found = criterion(answer, targets, None, LossConfig())
        return sum(
            weight * found.terms[name].mean() for name, weight in zip(NAMES, (1.0, 5.0, 2.0))
        ), found.assigned[0]

    call = jax.jit(jax.grad(ours, argnums=(0, 1), has_aux=True))
    gradients, assigned = call(output.decoder.logits[-1], output.decoder.boxes.values[-1])
    for owner, (query, place) in zip(np.asarray(assigned), matched):
        expected = np.full(QUERIES, -1)
        expected[query.numpy()] = place.numpy()
        np.testing.assert_array_equal(owner, expected)
    for found, expected in zip(gradients, (logits.grad, boxes.grad)):
        scale = float(expected.abs().max())
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5 * scale)


def test_matchability_aware_loss_is_that_of_deim(case):
    output, targets = case
    last = output.encoder
    draw = np.random.default_rng(47)
    chosen = [draw.permutation(QUERIES)[:count] for count in COUNTS]
    labels = np.full((IMAGES, QUERIES), -1, np.int32)
    wanted = np.full((IMAGES, QUERIES, 4), 0.5, np.float32)
    for image, places in enumerate(chosen):
        labels[image, places] = targets.labels[image, : len(places)]
        wanted[image, places] = targets.boxes.values[image, : len(places)]
    overlap = iou(last.boxes, cxcywh_norm(jnp.asarray(wanted)))
    config = LossConfig(classification="mal", gamma=1.5)
    ours = classification_loss(last.logits, jnp.asarray(labels), overlap, config).sum()

    settings = types.SimpleNamespace(gamma=1.5, mal_alpha=None, num_classes=CLASSES)
    settings._get_source_permutation_idx = rt_detr.RTDetrLoss._get_source_permutation_idx.__get__(
        settings
    )
    indices = [(torch.tensor(c), torch.arange(len(c))) for c in chosen]
    single = {"logits": tensor(last.logits), "pred_boxes": tensor(last.boxes.values)}
    loss = deimv2.Deimv2Loss.loss_labels_mal
    expected = loss(settings, single, torch_targets(targets), indices, num_boxes=1)["loss_mal"]
    assert float(ours) == pytest.approx(float(expected), rel=1e-5)

"""Failures 17, 20, 21 and 22: boxes in pixels, a whole config, mixed precision, a class too many.

The detector is a toy, a few boxes and logits that are learned directly, under the criterion and
guards of RT-DETR: what failed had nothing to do with the network.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr import guards
from rtdetr.boxes import Boxes, BoxFormatError, cxcywh_norm, xywh_px, xyxy_px
from rtdetr.config import (
    BackboneConfig,
    Config,
    DecoderConfig,
    DenoisingConfig,
    LossConfig,
    ModelConfig,
)
from rtdetr.losses.criterion import criterion, terms
from rtdetr.targets import DetectorOutput, Predictions, Targets
from tests.failures.toy_run import CONFIG, ToyRun
from training.capabilities import Guards
from training.config import GuardConfig, OptimizerConfig
from training.errors import ConfigError, GuardStop
from training.loss import LossOutput
from training.order import ExampleOrder
from training.source import Sources
from training.task import Task
from training.verdict import Description

LAYERS, QUERIES, CLASSES, OBJECTS, EXAMPLES = 2, 12, 80, 4, 32
BACKBONE = BackboneConfig(freeze_stem=False, freeze_norm=False)
LOSS = LossConfig(denoising=DenoisingConfig(slots=0))
DETECTOR = Config(
    "rtdetr",
    model=ModelConfig(backbone=BACKBONE, decoder=DecoderConfig(layers=LAYERS)),
    loss=LOSS,
)
IMAGE_SIZE = np.array([1080, 1920])
compiled = jax.jit(criterion, static_argnums=3)


def annotations(index):
    """Corners in px `[M, 4]` and labels of the objects of an image, as an annotation file has."""
    draw = np.random.default_rng(index)
    sides = draw.uniform(0.1, 0.4, (OBJECTS, 2)) * IMAGE_SIZE[::-1]
    corner = draw.uniform(0, 1, (OBJECTS, 2)) * (IMAGE_SIZE[::-1] - sides)
    return np.concatenate([corner, corner + sides], -1), draw.integers(0, CLASSES, OBJECTS)


@dataclasses.dataclass(frozen=True)
class ToyImages:
    """`change` puts a fault into what is right, from a place in the stream of examples on."""

    change: object = None
    first: int = 0

    fingerprint = "toy images"

    def __len__(self):
        return EXAMPLES

    def identity(self, index):
        return f"image {index}"

    def __getitem__(self, index):
        corners, labels = annotations(index)
        boxes = xyxy_px(corners, IMAGE_SIZE).normalized().values
        order = ExampleOrder(EXAMPLES, 0)  # of the first epoch
        faulty = {order.index(position) for position in range(self.first, EXAMPLES)}
        if self.change is not None and index in faulty:
            boxes, labels = self.change(corners, boxes, labels)
        return {"boxes": boxes.astype(np.float32), "labels": labels.astype(np.int32)}


@dataclasses.dataclass(frozen=True)
class ToyDetector(Task):
    """Learns one fixed answer for all images."""

    config: object = CONFIG
    source: ToyImages = ToyImages()
    prior: float = 0.01
    dtype: object = jnp.float32

    @cached_property
    def loss_terms(self):
        return terms(LOSS, LAYERS)

    def sources(self):
        return Sources(self.source, {})

    def init(self, key):
        bias = float(np.log(self.prior / (1 - self.prior)))
        boxes = jax.random.normal(key, (LAYERS + 1, QUERIES, 4))
        return {"logits": jnp.full((LAYERS + 1, QUERIES, CLASSES), bias), "boxes": boxes}, {}

    def loss(self, params, context, batch, key):
        images = len(batch["labels"])

        def answer(x):
            return jnp.repeat(x.astype(self.dtype)[:, None], images, axis=1)

        logits, boxes = answer(params["logits"]), answer(jax.nn.sigmoid(params["boxes"]))
        output = DetectorOutput(
            Predictions(logits[:-1], cxcywh_norm(boxes[:-1])),
            Predictions(logits[-1], cxcywh_norm(boxes[-1])),
            None,
            jnp.zeros((images, QUERIES), jnp.int32),
        )
        targets = Targets(cxcywh_norm(batch["boxes"]), batch["labels"])
        found = criterion(output, targets, None, LOSS)
        return LossOutput(found.terms, {}, jax.lax.stop_gradient(found.metrics))

    def optimizer_groups(self, params):
        return jax.tree.map(lambda _: "all", params)

    def guards(self):
        return Guards(
            names=guards.NAMES,
            start=lambda state, batch, resident: guards.of_start(DETECTOR, CLASSES, batch),
            watches=lambda _: guards.watches(DETECTOR),
        )

    def describe(self):
        keys = {"boxes": ((OBJECTS, 4), "float32"), "labels": ((OBJECTS,), "int32")}
        return Description({"answers": 1}, 1.0, keys)


def train(updates=4, off=(), **changes):
    slow = OptimizerConfig(learning_rate=1e-2)
    guard = GuardConfig(off=off, max_consecutive_skips=5)
    return ToyRun(ToyDetector(**changes), optimizer=slow, guards=guard).train(updates)


def in_pixels(corners, boxes, labels):
    """The original: corners in pixels handed on as if they were normalized."""
    return corners, labels


def background(corners, boxes, labels):
    """The original: what was no object got the class 80 of 80 classes."""
    return boxes, np.where(np.arange(OBJECTS) == 1, CLASSES, labels)


def test_a_sound_toy_detector_is_left_alone():
    run = train(24)
    assert [finding for _, finding in run.findings] == []
    losses = run.column("loss")
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_17_boxes_in_pixels_stop_the_run_before_the_first_update():
    with pytest.raises(GuardStop, match=r"max \d+(\.\d)? > 1: pixel boxes") as caught:
        train(source=ToyImages(in_pixels))
    assert caught.value.guard == "boxes"


def test_17_boxes_in_pixels_of_a_later_batch_stop_the_run_at_that_batch():
    # Batches hold 16 examples: the second one has them.
    with pytest.raises(GuardStop, match="48 objects of the batch of step 2 have a box that"):
        train(source=ToyImages(in_pixels, first=20))


def test_17_without_that_guard_the_first_loss_stops_the_run_and_asks_the_right_question():
    with pytest.raises(GuardStop, match="are the boxes not normalized") as caught:
        train(source=ToyImages(in_pixels), off=("boxes",))
    assert caught.value.guard == "first-loss"


@pytest.mark.parametrize("make", [xyxy_px, xywh_px])
def test_17_boxes_that_say_that_they_are_pixels_are_refused_when_traced(make):
    pixels = make(jnp.ones((1, OBJECTS, 4)), jnp.ones((1, 2)))
    with pytest.raises(BoxFormatError, match="Targets needs boxes in the format cxcywh_norm"):
        Targets(pixels, jnp.zeros((1, OBJECTS), jnp.int32))


@pytest.mark.parametrize(
    ("off", "said"),
    [
        ((), "is the prior of the classes missing"),
        (("first-loss",), r"mean probability of all classes is 0\.5000"),
    ],
    ids=["first-loss", "class-prior"],
)
def test_17_a_missing_prior_stops_the_run_at_its_first_update(off, said):
    with pytest.raises(GuardStop, match=said):
        train(prior=0.5, off=off)


def one_image(dtype=jnp.float32, label=3):
    """Output and targets of one image."""
    draw = np.random.default_rng(1)
    logits = jnp.asarray(draw.normal(size=(LAYERS + 1, 1, QUERIES, CLASSES)), dtype)
    boxes = jnp.asarray(draw.uniform(0.3, 0.6, (LAYERS + 1, 1, QUERIES, 4)), dtype)
    output = DetectorOutput(
        Predictions(logits[:-1], cxcywh_norm(boxes[:-1])),
        Predictions(logits[-1], cxcywh_norm(boxes[-1])),
        None,
        jnp.zeros((1, QUERIES), jnp.int32),
    )
    wanted = cxcywh_norm(jnp.full((1, OBJECTS, 4), 0.4))
    return output, Targets(wanted, jnp.array([[label, 5, -1, -1]]))


def test_20_a_criterion_given_the_whole_config_is_refused_with_what_to_pass():
    with pytest.raises(ConfigError, match=r"given a Config and needs the LossConfig.*pass"):
        criterion(*one_image(), None, DETECTOR)  # type: ignore[arg-type]


def equations(jaxpr):
    """Every equation of a program, also those inside of others."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_21_half_precision_predictions_train_and_no_number_is_written_by_index():
    for dtype in (jnp.bfloat16, jnp.float16):
        output, targets = one_image(dtype)
        exact = jax.tree.map(
            lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, output
        )
        found, expected = (compiled(x, targets, None, LOSS).terms for x in (output, exact))
        for name, total in found.items():
            assert total.sum.dtype == jnp.float32
            assert float(total.sum) == pytest.approx(float(expected[name].sum), rel=1e-6), name


def test_21_the_backward_pass_has_no_scatter_whose_types_could_differ():
    output, targets = one_image(jnp.bfloat16)

    def value(logits, boxes):
        answer = dataclasses.replace(output, decoder=Predictions(logits, cxcywh_norm(boxes)))
        found = criterion(answer, targets, None, LOSS).terms
        return sum(total.mean() for total in found.values())

    arguments = output.decoder.logits, output.decoder.boxes.values
    program = jax.make_jaxpr(jax.grad(value, argnums=(0, 1)))(*arguments)
    written = [e for e in equations(program.jaxpr) if e.primitive.name.startswith("scatter")]
    # The matching moves numbers of objects; nothing that is a loss or a gradient is scattered.
    assert all(e.outvars[0].aval.dtype == jnp.int32 for e in written)
    assert jax.eval_shape(jax.grad(value), *arguments).dtype == jnp.bfloat16


def test_22_a_background_class_stops_the_run_before_the_first_update():
    said = "has the label 80, but labels go from 0 to 79 .-1 is padding.: a background class"
    with pytest.raises(GuardStop, match=said):
        train(source=ToyImages(background))


def test_22_a_background_class_of_a_later_batch_stops_the_run_too():
    with pytest.raises(GuardStop, match="a label outside of the class table"):
        train(source=ToyImages(background, first=20))


def test_22_no_class_is_indexed_by_what_is_no_object():
    """Padding and unmatched queries have targets of zero in every class, not one class too many."""
    output, targets = one_image()
    nothing = Targets(targets.boxes, jnp.full((1, OBJECTS), -1))
    found = compiled(output, nothing, None, LOSS).terms["class"].sum
    p = jax.nn.sigmoid(output.decoder.logits[-1])
    expected = jnp.sum(0.75 * p**2 * -jnp.log1p(-p))
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    assert isinstance(nothing.boxes, Boxes) and int(nothing.count[0]) == 0

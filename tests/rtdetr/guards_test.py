"""Guards of RT-DETR: what each says, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from rtdetr.config import BackboneConfig, Config, ModelConfig
from rtdetr.guards import NAMES, PATIENCE, backbone_verdict, boxes_verdict, of_start, watches
from tests.rtdetr.losses.golden import random_targets
from training.config import CheckpointConfig

CLASSES = 5
CONFIG = Config(system="rtdetr")
# Of the published start: 13 sets with the weighted terms 1.1, 1.3 and 1.8.
SOUND = {
    "loss": 43.0,
    "invalid_objects": 0.0,
    "nonfinite_costs": 0.0,
    "mean_probability": 0.011,
    **{
        f"loss/{term}{part}": value * sets
        for term, value in (("class", 1.1), ("l1", 0.26), ("giou", 0.9))
        for part, sets in (("", 1), ("_layers", 5), ("_encoder", 1), ("_denoising", 6))
    },
}


def findings(changes, steps=3, config=CONFIG, first=1):
    """What the guards say in some updates."""
    active = watches(config)
    rows = [(step, {**SOUND, **changes}) for step in range(first, first + steps)]
    said = [watch.check(step, row) for step, row in rows for watch in active]
    return [verdict for verdict in said if verdict is not None]


def test_a_sound_start_is_left_alone():
    assert findings({}) == []
    assert {watch.name for watch in watches(CONFIG)} == set(NAMES) - {"frozen-backbone"}


TERMS = (
    ("loss/l1", 400.0, "l1 is 400 for each set of predictions at step 1.*boxes not normalized"),
    ("loss/l1_layers", 5 * 5.0, "l1_layers is 5 for each set"),
    ("loss/class", 115.0, "class is 115 for each set.*is the prior of the classes missing"),
    ("loss/class_denoising", 6 * 21.0, "class_denoising is 21 for each set"),
    ("loss/giou", np.nan, "giou is nan for each set.*boxes no numbers"),
)


@pytest.mark.parametrize(("name", "value", "said"), TERMS, ids=[name for name, *_ in TERMS])
def test_a_first_loss_out_of_range_stops_the_run_with_its_cause(name, value, said):
    first, *_ = findings({name: value}, steps=1)
    assert (first.name, first.passed, first.warning) == ("first-loss", False, False)
    assert re.search(said, first.sentence)


def test_limits_hold_for_one_set_and_only_at_the_start():
    assert findings({"loss/l1_layers": 5 * 3.9, "loss/class_layers": 5 * 19.0}) == []
    assert findings({"loss/l1": 400.0, "loss": 2000.0}, first=4) == []


def test_a_total_out_of_range_is_a_warning_that_follows_the_number_of_sets():
    for value in (15.0, 95.0):
        (warning,) = findings({"loss": value}, steps=5)
        assert warning.name == "first-loss" and warning.warning
        assert "13 sets of predictions of a sound network give 20 to 90" in warning.sentence
    decoder = dataclasses.replace(CONFIG.model.decoder, layers=3)
    small = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, decoder=decoder))
    assert findings({"loss": 15.0}, config=small) == []


def test_a_start_without_a_prior_stops_the_run():
    first, *_ = findings({"mean_probability": 0.5}, steps=1)
    assert first.name == "class-prior" and not first.warning
    assert "is 0.5000 before the first update and should be about 0.01" in first.sentence
    assert "-4.595" in first.sentence
    assert findings({"mean_probability": 0.2}, first=2) == [], "it may learn afterwards"


@pytest.mark.parametrize(
    "found, sound", [(0.0012, False), (0.0013, True), (0.079, True), (0.081, False)]
)
def test_the_prior_may_scatter_by_a_factor_of_eight(found, sound):
    assert (findings({"mean_probability": found}, steps=1) == []) == sound


def test_weights_that_were_taken_over_may_start_anywhere():
    config = dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(init_from="runs/before"))
    assert findings({"mean_probability": 0.2, "loss": 9.0}, config=config) == []
    assert findings({"loss/l1": 400.0}, steps=1, config=config)


def test_broken_costs_are_noted_once_and_stop_the_run_when_they_stay():
    said = findings({"nonfinite_costs": 7.0}, steps=PATIENCE)
    assert [verdict.warning for verdict in said] == [True, False]
    assert "7 costs between queries and objects are not finite at step 1" in said[0].sentence


def test_invalid_objects_of_any_batch_stop_the_run():
    (verdict,) = findings({"invalid_objects": 3.0}, steps=1, first=500)
    assert verdict.name == "boxes" and not verdict.warning
    assert verdict.sentence.startswith("3 objects of the batch of step 500 have a box")


@pytest.fixture
def batch():
    targets = random_targets(np.random.default_rng(8), [2, 0, 3], 3, CLASSES)
    return {"boxes": np.array(targets.boxes.values), "labels": np.array(targets.labels)}


def test_sound_boxes_pass(batch):
    verdict, _ = of_start(CONFIG, CLASSES, batch)
    assert verdict.passed and verdict.sentence.startswith("5 boxes of the first batch lie")


WRONG = (
    ("boxes", (320, 200, 612, 80), "max 612 > 1: pixel boxes"),
    ("boxes", (0.6, 0.6, 1.5, 0.9), "max 1.5 > 1: corners in place of a center and sides"),
    ("boxes", (0.6, 0.6, 0.9, 0.9), "leaves the canvas: corners"),
    ("boxes", (0.5, np.nan, 0.1, 0.1), "is no number"),
    ("boxes", (0.5, 0.5, -0.1, 0.1), "with a negative number"),
    ("boxes", (0.5, 0.5, 0.0, 0.1), "without area"),
    ("labels", CLASSES, "has the label 5, but labels go from 0 to 4.*a background class"),
    ("labels", 90, "raw category ids"),
    ("labels", -2, "has the label -2"),
)


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_a_wrong_object_is_named_with_the_likely_cause(batch, key, value, said):
    batch[key][2, 1] = value
    verdict = boxes_verdict(batch["boxes"], batch["labels"], CLASSES)
    assert not verdict.passed
    assert verdict.sentence.startswith("object 1 of example 2 of the first batch")
    assert re.search(said, verdict.sentence), verdict.sentence


def test_objects_behind_padding_are_refused(batch):
    batch["labels"][2] = (1, -1, 2)
    verdict = boxes_verdict(batch["boxes"], batch["labels"], CLASSES)
    assert not verdict.passed and "stands behind padding" in verdict.sentence


def test_whatever_lies_in_the_padding_is_no_box(batch):
    batch["boxes"][1] = np.nan
    assert boxes_verdict(batch["boxes"], batch["labels"], CLASSES).passed


@pytest.mark.parametrize("frozen", ["freeze_norm", "freeze_stem"])
def test_a_fixed_random_backbone_is_refused_unless_weights_are_named(frozen):
    both = {"freeze_norm": False, "freeze_stem": False}
    learns = Config("rtdetr", model=ModelConfig(backbone=BackboneConfig(**both)))
    fixed = Config("rtdetr", model=ModelConfig(backbone=BackboneConfig(**both | {frozen: True})))
    assert backbone_verdict(learns).passed
    found = backbone_verdict(fixed)
    assert not found.passed and frozen.removeprefix("freeze_") in found.sentence
    started = dataclasses.replace(fixed, checkpoint=CheckpointConfig(init_from="runs/weights"))
    assert backbone_verdict(started).passed

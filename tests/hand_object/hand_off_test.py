"""From stage to stage: another model, another sequence, another meaning are refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hand_object.config import SamplerConfig
from hand_object.hand_off import TOLERANCE, check_facts, check_witness, facts
from tests.hand_object.scenes import small_config, small_opened, small_task, task_of
from training.errors import CheckpointError


def test_a_stage_of_the_same_model_and_sequence_is_taken_with_other_samples():
    task = small_task()
    sampler = SamplerConfig("proposal", samples=4, probes=8, cache=8)
    other = small_task(model=replace(task.config.model, sampler=sampler))
    check_facts(task.metadata(), other.metadata())


def test_another_width_is_named_with_both_numbers():
    task, model = small_task(), small_task().config.model
    wide = small_task(model=replace(model, color=replace(model.color, width=256, frame_code=32)))
    with pytest.raises(CheckpointError) as refused:
        check_facts(task.metadata(), wide.metadata())
    assert str(refused.value) == (
        "checkpoint.init_from is of another model (model.color.frame_code 4 -> 32, "
        "model.color.width 32 -> 256; theirs -> here); give this stage the model of the one before"
    )


def test_other_units_and_hands_are_named():
    opened = small_opened()
    sequence = replace(opened.sequence, scene_scale=2 * opened.sequence.scene_scale)
    own, model = facts(opened, "a", small_config().model), small_config().model
    with pytest.raises(CheckpointError, match="scene_units_per_meter"):
        check_facts(own, facts(replace(opened, sequence=sequence), "a", model))
    hands = {side: replace(hand, name="other") for side, hand in opened.hands.items()}
    with pytest.raises(CheckpointError, match=r"hand.right \w+ -> other"):
        check_facts(own, facts(replace(opened, hands=hands), "a", model))


@pytest.mark.parametrize("part", ["images", "masks"])
def test_another_sequence_is_refused_by_its_content(part):
    opened = small_opened()
    changed = getattr(opened, part).copy()
    changed[0, 0, 0] += 1
    first = small_task()
    other = task_of(small_config(), replace(opened, **{part: changed}))
    with pytest.raises(CheckpointError, match="was trained on another sequence"):
        check_facts(first.metadata(), other.metadata())


def test_a_run_without_facts_is_refused():
    with pytest.raises(CheckpointError, match="does not say which model and sequence"):
        check_facts({}, small_task().metadata())


def test_figures_must_be_found_again():
    saved = {"rgb": 0.2, "mask": 1e-7}
    assert "rgb 0.2" in check_witness(saved, {"rgb": 0.2 * (1 + 0.9 * TOLERANCE), "mask": 0.0})
    for wrong in (0.2 * (1 + 1.1 * TOLERANCE), float("nan")):
        with pytest.raises(CheckpointError, match=r"rgb on fixed pixels was 0.2 when"):
            check_witness(saved, {"rgb": wrong, "mask": 1e-7})


@pytest.mark.parametrize("saved", [None, {}, {"other": 1.0}])
def test_parameters_without_figures_are_not_taken_on_trust(saved):
    with pytest.raises(CheckpointError, match="has no figures"):
        check_witness(saved, {"rgb": 0.2})

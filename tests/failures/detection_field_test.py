"""What users of detectors lost days to, and why it cannot happen here; numbered as in the field.

1 shifted class ids · 2 a fine-tuned head lost or foreign · 3 costs that are no numbers
4 rectangles · 5 batches without objects · 9 slow matching · 11 memory that grows
12 a COCO schedule on small data · 13 corrupt images · 15 a silent fallback; and of this project's
own history 18 (a setting under another name) and 19 (a layout that was guessed from sizes).
Of the others 6 is in `detection_export_test.py`, 8, 10 and 14 in `detection_scores_test.py`, and 7,
an interrupted run, in `rtdetr/task_test.py`.
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from rtdetr.boxes import cxcywh_norm
from rtdetr.config import Config, LossConfig
from rtdetr.data.preparation import PrepareSettings, prepare, read_source
from rtdetr.data.prepared import open_split
from rtdetr.losses.assignment import assign
from rtdetr.losses.matching_cost import matching_cost
from rtdetr.model.positions import position_embedding
from rtdetr.targets import Predictions, Targets
from rtdetr.task import check_warmup
from rtdetr.weights import remap
from tests.rtdetr.data.trees import coco, picture, write
from training.config import OptimizerConfig, ScheduleConfig
from training.errors import CheckpointError, ConfigError
from training.registry import load_config
from training.typed import build


def prepared(folder, output):
    source, splits = read_source(folder, "auto")
    settings = PrepareSettings(max_bad_fraction=0.9)
    report = prepare(splits, source, epath.Path(output), settings, lambda _: None)
    return report, open_split(output, "train")


def test_field_1_ids_with_gaps_give_labels_by_name_and_come_back_as_they_were(tmp_path):
    _, dataset = prepared(coco(tmp_path / "coco"), tmp_path / "data")
    labels = dataset.objects(0).labels
    assert labels.max() < len(dataset.classes) and dataset.classes.source_ids == (1, 5, 90)
    assert [dataset.classes.names[label] for label in labels] == ["cat", "bird"]


def test_field_2_a_head_goes_by_name_and_is_neither_lost_nor_foreign():
    path = "params/decoder/score_0/bias"
    theirs, ours = {"classes": ["dog", "cat"]}, ("cat", "dog")  # as many, in another order
    start, saved = {path: jnp.zeros(2)}, jnp.array([7.0, 8.0])
    form = remap.saved_form(start, {path}, ours, theirs)
    assert form[path].shape == (2,) and not isinstance(form[path], jax.Array)
    leaves, sentences = remap.inherited({path: saved}, start, ours, theirs)
    np.testing.assert_array_equal(leaves[path], [8.0, 7.0])
    assert "2 of 2 keep their heads" in sentences[0]
    with pytest.raises(CheckpointError, match="does not name their classes"):
        remap.saved_form(start, {path}, ours, {})


def test_field_3_a_prediction_that_is_no_number_is_the_last_choice_and_counted():
    logits = jnp.zeros((1, 1, 3, 2)).at[0, 0, 0].set(jnp.nan)
    boxes = jnp.full((1, 1, 3, 4), 0.5)
    targets = Targets(cxcywh_norm(jnp.full((1, 2, 4), 0.5)), jnp.zeros((1, 2), jnp.int32))
    cost, broken = matching_cost(Predictions(logits, cxcywh_norm(boxes)), targets, LossConfig())
    assigned = assign(cost, targets.count)[0, 0]
    assert int(broken) > 0 and assigned[0] == -1 and set(assigned[1:].tolist()) == {0, 1}


def test_field_4_positions_of_a_rectangle_tell_rows_from_columns():
    """The original was the transpose: a token's row stood where its column belongs."""
    height, width, channels = 3, 5, 8
    table = position_embedding(height, width, channels, "y_major").reshape(height, width, channels)
    half = channels // 2
    assert np.all(table[:, :, :half] == table[:, :1, :half])  # the row's part
    assert np.all(table[:, :, half:] == table[:1, :, half:])  # the column's part
    assert len(np.unique(table.reshape(-1, channels), axis=0)) == height * width
    original = position_embedding(height, width, channels, "x_major")
    assert np.abs(original.reshape(table.shape) - table).max() > 1


def test_field_5_a_batch_without_objects_matches_nothing_and_every_shape_stays():
    cost = jnp.zeros((2, 3, 5, 7))
    assert np.all(assign(cost, jnp.zeros(3, jnp.int32)) == -1)


def test_field_9_all_sets_and_images_are_matched_in_one_call_that_never_leaves_the_device():
    cost = jax.ShapeDtypeStruct((7, 4, 10, 30), jnp.float32)
    count = jax.ShapeDtypeStruct((4,), jnp.int32)
    text = jax.jit(assign).lower(cost, count).compile().as_text()
    for transfer in ("infeed", "outfeed", "callback", "send(", "recv("):
        assert transfer not in text


def test_field_11_shapes_do_not_depend_on_the_number_of_objects():
    """One program serves all batches: nothing is compiled, and no memory grown, for a full one."""
    function = jax.jit(assign)
    for count in (0, 3, 10):
        function(jnp.ones((1, 2, 10, 30)), jnp.full(2, count, jnp.int32))
    assert function._cache_size() == 1


@pytest.mark.parametrize("schedule", [{"warmup_updates": 100}, {"warmup_fraction": 0.2}])
def test_field_12_a_warm_up_that_eats_a_small_run_is_refused_with_its_arithmetic(schedule):
    optimizer = OptimizerConfig(schedule=ScheduleConfig("warmup_cosine", **schedule))
    config = Config("rtdetr", optimizer=optimizer)
    with pytest.raises(ConfigError, match=r"of 132 updates, more than 10% of the run"):
        check_warmup(config, 132)
    check_warmup(config, 10_000) if "warmup_updates" in schedule else None


def test_field_13_corrupt_images_are_named_and_background_stays(tmp_path):
    folder = coco(tmp_path / "coco")
    path = folder / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"].append({"id": 50, "file_name": "cut.png", "height": 60, "width": 80})
    path.write_text(json.dumps(content))
    write(folder / "train2017" / "cut.png", picture("cut")[:200])
    report, dataset = prepared(folder, tmp_path / "data")
    found = report["splits"]["train"]["findings"]
    assert "cut.png" in found["unreadable_image"]["examples"][0]
    names = [dataset.name(index) for index in range(len(dataset))]
    assert names == ["a.png", "b.png"] and len(dataset.objects(1).labels) == 0


def test_field_15_a_setting_that_does_not_exist_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"unknown key config\.loss\.gama; did you mean gamma"):
        build(Config, {"system": "rtdetr", "loss": {"gama": 1.5}})


def test_18_a_backbone_under_another_name_is_refused_by_every_command_alike():
    for override in ("model.backbone_type=r50", "model.backbone.backbone_name=r50"):
        with pytest.raises(ConfigError, match="unknown key"):
            load_config("configs/rtdetr/smoke.py", [override])


@pytest.mark.parametrize("batch, queries", [(9, 3), (1, 3), (3, 3)])
def test_19_more_images_than_queries_are_no_other_layout(batch, queries):
    """The original swapped axes where the batch was more than twice the number of queries."""
    logits = jax.random.normal(jax.random.key(0), (1, batch, queries, 4))
    boxes = jax.nn.sigmoid(jax.random.normal(jax.random.key(1), (1, batch, queries, 4)))
    labels = jnp.tile(jnp.array([[2, -1]], jnp.int32), (batch, 1))
    targets = Targets(cxcywh_norm(boxes[0, :, :2]), labels)
    cost, _ = matching_cost(Predictions(logits, cxcywh_norm(boxes)), targets, LossConfig())
    together = assign(cost, targets.count)
    alone = [assign(cost[:, i : i + 1], targets.count[i : i + 1]) for i in range(batch)]
    np.testing.assert_array_equal(together, jnp.concatenate(alone, axis=1))

"""The task of RT-DETR: its settings, groups, shapes and phases, and a whole short run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from rtdetr.data.preparation import PrepareSettings, prepare, read_source
from rtdetr.synthetic import write_dataset
from rtdetr.task import DetectorTask
from training.checkpoint.store import CheckpointReader
from training.errors import ConfigError
from training.loop import fit
from training.mesh import Layout, make_mesh
from training.optimizer import FROZEN
from training.program import Program
from training.registry import load_config, make_task
from training.verdict import Evaluation

SMALL = (
    "data.size=(64,64)",
    "model.backbone.stem=(8,8,8)",
    "model.backbone.widths=(8,8,8,8)",
    "model.encoder.width=16",
    "model.encoder.feed_forward=16",
    "model.decoder.width=16",
    "model.decoder.feed_forward=16",
    "model.decoder.queries=12",
    "model.decoder.position_hidden=(16,)",
    "data.max_objects=8",
    "loss.denoising.slots=6",
    "batch_size=8",
    "evaluation.batch_size=8",
    "scoring.bootstrap=0",
    "scoring.pictures=1",
)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A prepared folder of drawn shapes."""
    folder = tmp_path_factory.mktemp("shapes")
    source, splits = read_source(write_dataset(folder / "coco", 8, 4, (64, 64)), "auto")
    prepare(splits, source, epath.Path(folder / "data"), PrepareSettings(), lambda _: None)
    return folder / "data"


def config_of(shapes, *overrides):
    return load_config(f"configs/rtdetr/smoke.py:{shapes}", [*SMALL, *overrides])


def task_of(shapes, *overrides) -> DetectorTask:
    return make_task(config_of(shapes, *overrides))


def test_the_class_table_travels_with_the_checkpoint(shapes):
    task = task_of(shapes)
    assert task.metadata()["classes"] == ["circle", "square", "triangle"]
    moved = task.with_metadata(json.loads(json.dumps(task.metadata())))
    assert moved.classes == task.classes and moved.classes.source_ids == (2, 3, 7)


def test_data_of_other_classes_than_the_weights_is_refused(shapes):
    metadata = {"classes": ["circle", "square", "star"], "source_ids": [2, 3, 7]}
    with pytest.raises(ConfigError, match="trained for circle, square, star"):
        task_of(shapes).with_metadata(metadata).sources()


@pytest.mark.parametrize(
    "override, said",
    [
        ("scoring.layers=3", "has 2 layers"),
        ("data.max_objects=13", "cannot be matched by 12 queries"),
        ("data.augment.mosaic=0.5", "never happen"),
        ("model.classes=80", "the class table has 3 classes"),
        ("optimizer.schedule.warmup_fraction=0.11", "the warm-up takes 55 of 500 updates"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(shapes, override, said):
    with pytest.raises(ConfigError, match=said):
        task = task_of(shapes, override)
        task.sources()
        jax.eval_shape(task.init, jax.random.key(0))


def test_the_stem_is_frozen_only_where_it_should_be_and_norms_and_biases_do_not_decay(shapes):
    frozen = "model.backbone.freeze_stem=True"
    for overrides, label in (((), "backbone"), ((frozen,), FROZEN)):
        program = Program(task_of(shapes, *overrides), Layout(make_mesh(config_of(shapes).mesh)))
        table = {path: (group, decays) for path, group, decays in program.optimizer.decay_table()}
        groups = {group for path, (group, _) in table.items() if path.startswith("backbone/stem")}
        assert groups == {label}
        for path, (group, decays) in table.items():
            kernel = path.endswith("kernel")
            assert decays == (kernel and group != FROZEN), path


def test_each_canvas_is_one_variant_and_an_update_has_one(shapes):
    task = task_of(shapes, "data.scales=((64,96),(96,64))")
    assert task.variants == ((64, 64), (64, 96), (96, 64))
    drawn = [task.variant(step) for step in range(200)]
    assert set(drawn) == {(64, 96), (96, 64)}
    # The last part of the run is at one size.
    assert {task.variant(step) for step in range(495, 500)} == {(64, 64)}
    example = task.sources().train.load(0, 8 * 7)
    height, width = task.variant(7)
    described = task.as_variant((height, width)).describe().batch_keys
    for name, (shape, dtype) in described.items():
        assert example[name].shape == shape and str(example[name].dtype) == dtype, name


@pytest.mark.slow
def test_a_batch_without_any_object_trains(shapes):
    task = task_of(shapes)
    layout = Layout(make_mesh(task.config.mesh))
    program = Program(task, layout)
    rows = [task.sources().train[index] for index in range(8)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    batch |= {"labels": np.full_like(batch["labels"], -1), "boxes": 0 * batch["boxes"]}
    batch |= {"position": np.arange(8, dtype=np.uint32), "index": np.arange(8, dtype=np.int32)}
    with jax.set_mesh(layout.mesh):
        state = program.initial_state()
        before = jax.device_get(state.params)
        batches = jax.tree.map(lambda x: jnp.asarray(x)[None], batch)
        state, read = program.step(state, batches, (64, 64))
        (row,) = read()
    assert np.isfinite(row["loss"]) and row["loss/class"] > 0
    assert row["loss/l1"] == row["loss/giou"] == 0
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, jax.device_get(state.params))
    assert moved["decoder"]["score_1"]["bias"]


@pytest.mark.slow
def test_an_update_is_compiled_once_for_each_canvas_and_never_again(shapes):
    task = task_of(shapes, "data.scales=((64,96),)")
    layout = Layout(make_mesh(task.config.mesh))
    program = Program(task, layout)
    canvases = [(64, 64), (64, 96)]
    batches = {
        canvas: {
            name: np.full(leaf.shape, -(name == "labels")).astype(leaf.dtype)
            for name, leaf in program.abstract_batches(1, canvas).items()
        }
        for canvas in canvases
    }
    compiled: list[str] = []

    def count(event: str, seconds: float, **_) -> None:
        compiled.extend([event] * ("backend_compile" in event))

    with jax.set_mesh(layout.mesh):
        state = program.initial_state()
        for turn in range(3):
            if turn == 1:
                jax.monitoring.register_event_duration_secs_listener(count)
            for canvas in canvases:
                state, read = program.step(state, batches[canvas], canvas)
                read()
    jax.monitoring.unregister_event_duration_listener(count)
    assert not compiled


@pytest.mark.slow
def test_a_run_resumes_to_the_same_losses_and_evaluates_average_and_last_weights(shapes, tmp_path):
    short = ("total.updates=4", "evaluation.every.updates=4", "checkpoint.every.updates=2")
    logged = ("log.every=1", "optimizer.schedule.warmup_fraction=0.0", "data.scales=((64,96),)")
    task = task_of(shapes, *short, *logged)
    fit(task, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "checkpoints" / "4")
    (tmp_path / "part" / "DONE").unlink()
    fit(task, tmp_path / "part")

    def losses(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}

    assert losses(tmp_path / "part")[4] == losses(tmp_path / "whole")[4]
    layout = Layout(make_mesh(task.config.mesh))
    with jax.set_mesh(layout.mesh):
        abstract = jax.eval_shape(Program(task, layout).initial_state)
    whole, part = (
        CheckpointReader(tmp_path / name).restore_subtree(
            4, {"params": abstract.params, "ema": abstract.ema, "opt_state": abstract.opt_state}
        )
        for name in ("whole", "part")
    )
    jax.tree.map(np.testing.assert_array_equal, part, whole)
    scores = json.loads((tmp_path / "whole" / "eval" / "4.json").read_text())
    assert {"AP50", "AP50_raw", "matched_iou", "matched_iou_raw"} <= set(scores)
    assert (tmp_path / "whole" / "tables" / "doctor.json").exists()


def test_the_overfit_test_needs_both_classes_and_places(shapes):
    task = task_of(shapes)

    def row(ap50, iou):
        return Evaluation({"AP50_raw": ap50, "matched_iou_raw": iou})

    start = row(0.0, 0.1)
    assert task.overfit_verdict(start, row(0.95, 0.8)).passed
    assert not task.overfit_verdict(start, row(0.94, 0.9)).passed
    assert not task.overfit_verdict(start, row(1.0, 0.79)).passed


def test_the_overfit_form_has_no_draws_and_one_canvas(shapes):
    task = task_of(shapes, "data.scales=((64,96),)", "scoring.raw=False").without_augmentation()
    assert task.variants == ((64, 64),) and task.config.scoring.raw
    source = task.sources().train
    for name, array in source.load(0, 40).items():
        np.testing.assert_array_equal(array, source.load(0, 4)[name])


def test_recipes_are_whole(shapes):
    for path in sorted(Path("configs/rtdetr").glob("*.py")):
        if path.stem in ("__init__", "architectures"):
            continue
        config = load_config(f"{path}", [])
        assert config.system == "rtdetr"
        assert make_task(dataclasses.replace(config)).config == config

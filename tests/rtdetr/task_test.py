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
from training.checkpoint.restore import restored
from training.errors import ConfigError
from training.loop import fit
from training.mesh import Layout, make_mesh
from training.optimizer import FROZEN
from training.paths import named_leaves
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


CANVASES = ((64, 64), (64, 96))
UPDATES = 6


@pytest.fixture(scope="module")
def runs(shapes, tmp_path_factory):
    """A whole run, one that was interrupted and taken up again, and the steps of the first."""
    short = (f"total.updates={UPDATES}", "evaluation.every.updates=6", "checkpoint.every.updates=3")
    logged = ("log.every=1", "optimizer.schedule.warmup_fraction=0.0", f"data.scales={CANVASES}")
    task, folder = task_of(shapes, *short, *logged), tmp_path_factory.mktemp("runs")
    assert {task.variant(step) for step in range(UPDATES)} == set(CANVASES)
    steps, compile_one = [], Program._compile

    def recorded(program, *kind):
        steps.append(compile_one(program, *kind))
        return steps[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "_compile", recorded)
        fit(task, folder / "whole")
    shutil.copytree(folder / "whole", folder / "part")
    shutil.rmtree(folder / "part" / "checkpoints" / f"{UPDATES}")
    (folder / "part" / "DONE").unlink()
    fit(task, folder / "part")
    return folder, steps


@pytest.mark.slow
def test_a_run_that_is_taken_up_again_ends_with_the_same_state(runs):
    """Field failure 7: weights, averages, moments, statistics, key and place in the data."""
    folder, _ = runs
    first, second = (
        jax.tree.map(plain, restored(folder / name, "latest")[1]) for name in ("whole", "part")
    )
    wanted, found = named_leaves(first), named_leaves(second)
    assert found.keys() == wanted.keys()
    for kind in ("params/", "ema/", "opt_state/", "model_state/", "key", "step"):
        assert any(path.startswith(kind) for path in wanted), kind
    for path, value in wanted.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def plain(leaf):
    keys = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if keys else leaf)


@pytest.mark.slow
def test_the_step_is_compiled_once_for_each_canvas_and_not_again(runs):
    _, steps = runs
    assert [step._cache_size() for step in steps] == [1] * len(CANVASES)


@pytest.mark.slow
def test_a_run_evaluates_the_average_and_the_last_weights(runs):
    folder, _ = runs
    scores = json.loads((folder / "whole" / "eval" / f"{UPDATES}.json").read_text())
    assert {"AP50", "AP50_raw", "matched_iou", "matched_iou_raw"} <= set(scores)
    assert (folder / "whole" / "tables" / "doctor.json").exists()


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

"""A run from weights of other classes: heads go by name, nothing is lost or foreign in silence."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from rtdetr.config import (
    BackboneConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
)
from rtdetr.data.preparation import PrepareSettings, prepare, read_source
from rtdetr.task import make_task
from rtdetr.weights import imported, remap
from tests.rtdetr.data.trees import NAMES, coco
from tests.rtdetr.weights.folder import random_weights, write_transformers
from tests.rtdetr.weights.import_test import arguments
from training.checkpoint.init_from import initialize, initialized_from
from training.checkpoint.restore import restored
from training.config import CheckpointConfig, Duration, EmaConfig, MeshConfig
from training.errors import CheckpointError, ConfigError
from training.mesh import Layout, make_mesh
from training.paths import named_leaves
from training.program import Program

pytestmark = [pytest.mark.usefixtures("quick_compilation"), pytest.mark.slow]
MODEL = ModelConfig(
    backbone=BackboneConfig("basic", depths=(1, 1, 1, 1), stem=(4, 4, 8), widths=(8, 12, 16, 20)),
    encoder=EncoderConfig(width=8, heads=2, feed_forward=8, expansion=0.5),
    decoder=DecoderConfig(
        width=8,
        heads=2,
        feed_forward=8,
        layers=2,
        queries=10,
        points=(1, 1, 1),
        position_hidden=(16,),
    ),
)
# Of the weights; "dog" and "cat" are in the data too, at other places.
THEIRS = ("dog", "horse", "cat", "cow")


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    """Prepared images of cats, dogs and birds."""
    folder = tmp_path_factory.mktemp("own")
    source, splits = read_source(coco(folder / "coco"), "auto")
    settings = PrepareSettings(max_bad_fraction=0.9, workers=1)
    prepare(splits, source, epath.Path(folder / "data"), settings, lambda _: None)
    return str(folder / "data")


@pytest.fixture(scope="module")
def weights_run(tmp_path_factory):
    """A work folder of imported weights with the classes THEIRS, and one of their backbone."""
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "folder", THEIRS)
    for name, backbone_only in (("run", False), ("backbone", True)):
        args = arguments(folder / "folder", folder / name, backbone_only=backbone_only)
        imported.import_weights(args)
    return folder


def write_weights(folder, names):
    """A network of these classes; every array has values of its own."""
    weights = random_weights(MODEL, len(names))
    write_transformers(folder, weights, MODEL)
    values = json.loads((folder / "config.json").read_text())
    values["id2label"] = {str(number): name for number, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(values))


def small(config, **data):
    return dataclasses.replace(config, data=DataConfig(max_objects=5, **data))


def task_of(own_data, frozen=True, **checkpoint):
    backbone = dataclasses.replace(MODEL.backbone, freeze_norm=frozen, freeze_stem=frozen)
    config = Config(
        "rtdetr",
        model=dataclasses.replace(MODEL, backbone=backbone),
        total=Duration(updates=1),
        batch_size=1,
        ema=EmaConfig(kind="warmup"),
        checkpoint=CheckpointConfig(**checkpoint),
    )
    return make_task(small(config, folder=own_data))


@functools.cache
def fresh_state(own_data, frozen):
    """A program, and a state before its first update: drawn here, since compiling takes longer."""
    program = Program(task_of(own_data, frozen), Layout(make_mesh(MeshConfig(), jax.devices()[:1])))
    draw = np.random.default_rng(5)

    def drawn(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.device_put(jax.random.key(5), leaf.sharding)
        values = draw.normal(size=leaf.shape) if leaf.ndim else np.zeros(())
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    with jax.set_mesh(program.layout.mesh):
        return program, jax.tree.map(drawn, program.abstract_state)


def start_of(own_data, init_from, frozen=True, **checkpoint):
    """Leaves of a run's state before its first update, those of its initialization, sentences."""
    program, fresh = fresh_state(own_data, frozen)
    task, said = task_of(own_data, frozen, init_from=str(init_from), **checkpoint), []
    with jax.set_mesh(program.layout.mesh):
        state = initialized_from(fresh, task, said.append)
    assert jax.tree.map(lambda x: x.sharding, state.params) == program.shardings.params
    return named_leaves(state), named_leaves(fresh), said


@pytest.fixture(scope="module")
def saved(weights_run):
    """Leaves of the imported run, as every command restores them."""
    return named_leaves(restored(str(weights_run / "run"), "latest")[1])


@pytest.fixture(scope="module")
def started(own_data, weights_run):
    return start_of(own_data, weights_run / "run")


@pytest.mark.parametrize("root", ["params", "ema/params"])
@pytest.mark.parametrize("head", ["token_score", "score_0", "score_1"])
def test_shared_classes_keep_their_heads_and_others_begin_anew(started, saved, root, head):
    found, fresh, _ = started
    path = f"{root}/decoder/{head}/kernel"
    kernel, theirs, start = (np.asarray(leaves[path]) for leaves in (found, saved, fresh))
    assert NAMES == ("cat", "dog", "bird")
    np.testing.assert_array_equal(kernel[:, 0], theirs[:, 2])
    np.testing.assert_array_equal(kernel[:, 1], theirs[:, 0])
    np.testing.assert_array_equal(kernel[:, 2], start[:, 2])
    assert not np.array_equal(theirs[:, 2], start[:, 0])


def test_the_denoising_table_goes_by_name_and_keeps_its_padding(started, saved):
    found, fresh, _ = started
    path = "params/decoder/denoising_classes"
    rows, theirs, start = (np.asarray(leaves[path]) for leaves in (found, saved, fresh))
    np.testing.assert_array_equal(rows, np.stack([theirs[2], theirs[0], start[2], theirs[4]]))


def test_everything_else_is_taken_over_as_it_is(started, saved):
    found, fresh, _ = started
    taken = ("params/", "model_state/", "ema/")
    others = [p for p in found if p.startswith(taken) and not remap.is_head(p)]
    assert len(others) > 500
    for path in others:
        np.testing.assert_array_equal(found[path], saved[path], err_msg=path)
    changed = [p for p in others if not np.array_equal(found[p], fresh[p])]
    assert any("encoder/" in path for path in changed)


def test_a_sentence_says_which_classes_are_new_and_which_are_left_behind(started):
    assert started[2] == [
        "classes by name: 2 of 3 keep their heads; new: bird; left behind: horse, cow"
    ]


def test_trained_norms_start_from_fixed_ones(own_data, weights_run, saved):
    found, _, _ = start_of(own_data, weights_run / "run", frozen=False)
    norm = "backbone/stem/conv_0/norm"
    for name in ("scale", "bias"):
        np.testing.assert_array_equal(
            found[f"params/{norm}/{name}"], saved[f"model_state/{norm}/{name}"]
        )
        assert f"model_state/{norm}/{name}" not in found


def test_of_a_backbone_the_rest_begins_anew(own_data, weights_run, saved):
    found, fresh, said = start_of(own_data, weights_run / "backbone")
    for path in found:
        wanted = saved if "/backbone/" in path and not path.startswith("opt_state") else fresh
        if path.startswith(("params", "model_state", "ema")):
            np.testing.assert_array_equal(found[path], wanted[path], err_msg=path)
    assert said == ["the backbone was taken over; encoder, decoder and heads begin anew"]


def test_heads_that_are_left_out_begin_anew(own_data, weights_run):
    heads = r".*/(token_score|score_\d|denoising_classes).*"
    found, fresh, said = start_of(own_data, weights_run / "run", init_exclude=(heads,))
    for path in filter(remap.is_head, found):
        np.testing.assert_array_equal(found[path], fresh[path])
    assert said == []


def test_another_network_is_refused_all_the_same(own_data, weights_run):
    initial = {"params": {"decoder": {"token": {"kernel": jnp.zeros((9, 8))}}}}
    task = task_of(own_data, init_from=str(weights_run / "run"))
    with pytest.raises(CheckpointError, match=r"token/kernel\s+saved \(8, 8\)"):
        initialize(initial, task.config.checkpoint, task)


def test_heads_of_unknown_classes_are_refused():
    with pytest.raises(CheckpointError, match="does not name their classes"):
        remap.saved_form({}, ["params/decoder/score_0/bias"], NAMES, {})


def test_data_with_other_classes_is_not_scored_and_both_lists_are_named(own_data):
    config = Config("rtdetr", model=MODEL, total=Duration(updates=1), batch_size=1)
    task = make_task(small(config, folder=own_data))
    task = task.with_metadata({"classes": list(THEIRS), "source_ids": [0, 1, 2, 3]})
    with pytest.raises(ConfigError, match=r"cat, dog, bird.*dog, horse, cat, cow"):
        task.sources()


def test_a_backbone_alone_is_no_model():
    task = make_task(Config("rtdetr", model=MODEL, data=DataConfig(max_objects=5)))
    with pytest.raises(CheckpointError, match="holds a backbone only"):
        task.with_metadata({"backbone_only": True})

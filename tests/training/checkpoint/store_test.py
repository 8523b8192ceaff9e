"""Saving, keeping and restoring on one process with eight devices."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from training.checkpoint.store import CheckpointReader, CheckpointStore
from training.config import CheckpointConfig
from training.errors import CheckpointError, ConfigError
from training.paths import named_leaves, rebuild
from training.state import TrainState, new_state

CONFIG = CheckpointConfig(keep_latest=2, keep_every=None)


def make_state(key: jax.Array, width: int = 8) -> TrainState:
    """A state with every kind of leaf: lists, moments, flags, counters, a typed key."""
    kernel_key, bias_key, run_key = jax.random.split(key, 3)
    params = {
        "encoder": {"kernel": jax.random.normal(kernel_key, (width, 4))},
        "layers": [jax.random.normal(bias_key, (3,)), jnp.ones((3,))],
    }
    model_state = {"alive": jnp.array([True, False]), "seen": jnp.array([1, 2], jnp.int32)}
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    # A copy: one buffer in two places cannot be donated.
    ema = jax.tree.map(jnp.copy, params)
    return new_state(params, model_state, optimizer.init(params), ema, run_key)


def mesh_of(*shape: int) -> Mesh:
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return Mesh(devices, ("data", "fsdp")[: len(shape)], axis_types=(AxisType.Auto,) * len(shape))


def on_mesh(state: TrainState, mesh: Mesh) -> TrainState:
    """The abstract state with the encoder split over the first axis, the rest replicated."""
    leaves = {
        name: jax.ShapeDtypeStruct(
            leaf.shape,
            leaf.dtype,
            sharding=NamedSharding(
                mesh, PartitionSpec("data") if name.endswith("encoder/kernel") else PartitionSpec()
            ),
        )
        for name, leaf in named_leaves(state).items()
    }
    return rebuild(state, leaves)


def words(state) -> dict[str, np.ndarray]:
    """All leaves on the host, keys as their words."""
    return {
        name: np.asarray(
            jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        )
        for name, leaf in named_leaves(state).items()
    }


def assert_same_bits(left, right) -> None:
    ours, theirs = words(left), words(right)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.fixture
def saved(tmp_path, new_key):
    """A work folder with one checkpoint at step 7, and its state."""
    state = make_state(new_key())
    store = CheckpointStore(tmp_path, CONFIG)
    assert store.save(
        7,
        state,
        {"examples": 56, "fingerprint": "abc", "none": None},
        config={"model": {"width": 8, "rates": (1, 2)}},
        task={"capacity": 10},
        metrics={"score": 0.5, "broken": float("nan")},
    )
    store.close()
    return tmp_path, state


def test_every_leaf_comes_back_bit_for_bit_on_any_mesh(saved):
    workdir, state = saved
    for mesh in (mesh_of(8), mesh_of(2, 4), mesh_of(1)):
        abstract = on_mesh(state, mesh)
        restored, data = CheckpointReader(workdir).restore("latest", abstract)
        assert_same_bits(restored, state)
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        assert restored.params["encoder"]["kernel"].sharding == (
            abstract.params["encoder"]["kernel"].sharding
        )
        assert data == {"examples": 56, "fingerprint": "abc", "none": None}


def test_the_key_of_a_restored_state_draws_the_same_numbers(saved):
    workdir, state = saved
    restored, _ = CheckpointReader(workdir).restore(7, state)
    draw = jax.random.normal(jax.random.fold_in(state.key, 3), (4,))
    np.testing.assert_array_equal(
        draw, jax.random.normal(jax.random.fold_in(restored.key, 3), (4,))
    )


def test_without_shardings_a_single_process_restores_on_its_first_device(saved):
    workdir, state = saved
    abstract = jax.eval_shape(lambda: state)
    restored, _ = CheckpointReader(workdir).restore(7, abstract)
    assert restored.step.devices() == {jax.devices()[0]}


def test_a_description_holds_shapes_config_task_and_finite_metrics(saved):
    description = CheckpointReader(saved[0]).describe("latest")
    assert description.step == 7
    assert description.leaves["params/encoder/kernel"].shape == (8, 4)
    assert description.leaves["model_state/alive"].dtype == "bool"
    assert description.config == {"model": {"width": 8, "rates": [1, 2]}}
    assert description.task == {"capacity": 10}
    assert description.metrics == {"score": 0.5}


def test_the_data_position_is_readable_json(saved):
    text = (saved[0] / "checkpoints" / "7" / "data" / "data.json").read_text()
    assert json.loads(text)["examples"] == 56


def test_a_wrong_shape_is_refused_with_the_path_and_the_config_change(saved, new_key):
    other = make_state(new_key(), width=16)
    with pytest.raises(CheckpointError) as caught:
        CheckpointReader(saved[0]).restore("latest", other, {"model": {"width": 16}})
    message = str(caught.value)
    assert "params/encoder/kernel     saved (8, 4)   model (16, 4)" in message
    assert "model.width 8 -> 16" in message


def test_a_wrong_dtype_is_refused(saved):
    workdir, state = saved
    seen = {**state.model_state, "seen": state.model_state["seen"].astype(jnp.float32)}
    other = TrainState(**{**vars(state), "model_state": seen})
    with pytest.raises(CheckpointError, match=r"dtype\s+model_state/seen\s+saved int32"):
        CheckpointReader(workdir).restore("latest", other)


def test_a_subtree_is_restored_alone_and_unselected_leaves_are_kept(saved, new_key):
    workdir, state = saved
    other = make_state(new_key())
    reader = CheckpointReader(workdir)
    whole = reader.restore_subtree("latest", {"params": other.params, "ema": other.ema})
    assert_same_bits(whole, {"params": state.params, "ema": state.ema})
    part = reader.restore_subtree("latest", {"params": other.params}, exclude=("params/layers/0",))
    np.testing.assert_array_equal(part["params"]["layers"][0], other.params["layers"][0])
    np.testing.assert_array_equal(
        part["params"]["encoder"]["kernel"], state.params["encoder"]["kernel"]
    )


def test_donating_the_state_right_after_a_save_does_not_change_what_is_saved(tmp_path, new_key):
    state = make_state(new_key(), width=4096)
    expected = jax.tree.map(np.copy, words(state))
    abstract = on_mesh(state, mesh_of(8))
    placed = jax.device_put(state, jax.tree.map(lambda leaf: leaf.sharding, abstract))

    def spoil(tree: TrainState) -> TrainState:
        params = jax.tree.map(lambda leaf: leaf * 0 - 1, tree.params)
        return TrainState(**{**vars(tree), "params": params})

    store = CheckpointStore(tmp_path, CONFIG)
    store.save(1, placed, {})
    spoiled = jax.jit(spoil, donate_argnums=0)(placed)
    assert float(spoiled.params["encoder"]["kernel"].max()) == -1.0
    # Whether the buffer is already gone depends on how far the background save has come.
    store.close()
    restored, _ = CheckpointReader(tmp_path).restore(1, abstract)
    assert_same_bits(words(restored), expected)


def test_a_relative_work_folder_is_as_good_as_an_absolute_one(tmp_path, new_key, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = make_state(new_key())
    store = CheckpointStore(Path("runs/one"), CONFIG)
    store.save(1, state, {"examples": 8})
    store.close()
    restored, data = CheckpointReader("runs/one").restore(1, state)
    assert_same_bits(words(restored), words(state))
    assert data == {"examples": 8} and (tmp_path / "runs/one/checkpoints/1").is_dir()


def test_retention_holds_over_a_restart(tmp_path, new_key):
    config = CheckpointConfig(keep_latest=2, keep_every=8, best_metric="score")
    state = make_state(new_key())
    for steps in (range(2, 8, 2), range(8, 16, 2)):
        store = CheckpointStore(tmp_path, config)
        for step in steps:
            store.save(step, state, {}, metrics={"score": 0.9 if step == 4 else 0.1})
        store.close()
    reader = CheckpointReader(tmp_path, config)
    assert reader.steps() == [4, 8, 12, 14]
    assert (reader.latest(), reader.best(), reader.resolve("best")) == (14, 4, 4)


def test_saving_the_same_step_twice_writes_once_also_after_a_restart(saved):
    workdir, state = saved
    store = CheckpointStore(workdir, CONFIG)
    assert not store.save(7, state, {})
    assert store.save(8, state, {})
    assert not store.save(8, state, {})
    store.close()
    assert store.steps() == [7, 8]


def test_what_a_killed_save_left_is_never_latest_and_is_cleared_by_the_next_run(saved):
    workdir, state = saved
    folder = workdir / "checkpoints"
    (folder / "9.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    torn = folder / "8"
    torn.mkdir()
    (torn / "_CHECKPOINT_METADATA").write_text("{}")
    assert CheckpointReader(workdir).latest() == 7
    store = CheckpointStore(workdir, CONFIG)
    assert sorted(os.listdir(folder)) == ["7", "8.incomplete"]
    assert store.latest() == 7
    assert store.save(8, state, {})
    store.close()
    assert store.steps() == [7, 8]


def test_in_a_bucket_a_killed_save_is_removed_and_a_copy_in_progress_kept(bucket, new_key):
    state = make_state(new_key())
    store = CheckpointStore(bucket, CONFIG)
    for step in (1, 2):
        store.save(step, state, {"examples": step})
    store.close()
    assert store.steps() == [1, 2]
    for step in (1, 2):
        (bucket / f"checkpoints/{step}/commit_success.txt").unlink()
    metadata = bucket / "checkpoints/2/_CHECKPOINT_METADATA"
    facts = json.loads(metadata.read_text())
    assert facts["commit_timestamp_nsecs"] > facts["init_timestamp_nsecs"]
    metadata.write_text(json.dumps(facts | {"commit_timestamp_nsecs": None}))

    store = CheckpointStore(bucket, CONFIG)
    assert store.latest() is None
    names = [path.name for path in (bucket / "checkpoints").iterdir()]
    assert names == ["1.incomplete"]
    assert store.save(2, state, {"examples": 2})
    store.close()
    restored, data = store.restore("latest", state)
    assert_same_bits(restored, state)
    assert data == {"examples": 2}


def test_a_save_that_failed_in_the_background_is_told_at_the_next_poll(saved, monkeypatch):
    workdir, state = saved
    store = CheckpointStore(workdir, CONFIG)
    store.poll()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)  # what commits a save
        store.save(8, state, {})
        with pytest.raises(CheckpointError, match=r"No space left.*check free space"):
            while True:
                store.poll()
    assert CheckpointReader(workdir).latest() == 7
    assert store.save(9, state, {})  # it may be tried again
    store.close()
    assert store.steps() == [7, 9]


@pytest.mark.parametrize("lost", ["commit_success.txt", "state/manifest.ocdbt", "data/data.json"])
def test_a_checkpoint_without_one_of_its_parts_does_not_count(saved, lost):
    workdir, _ = saved
    (workdir / "checkpoints" / "7" / lost).unlink()
    assert CheckpointReader(workdir).steps() == []


@pytest.mark.parametrize("damage", [lambda part: part.write_bytes(b"damaged"), Path.unlink])
def test_damaged_or_deleted_array_data_is_one_sentence(saved, damage):
    workdir, state = saved
    for part in (workdir / "checkpoints" / "7" / "state").rglob("d/*"):
        damage(part)
    with pytest.raises(CheckpointError, match=r"checkpoints/7 cannot be read \(") as caught:
        CheckpointReader(workdir).restore("latest", state)
    assert "\n" not in str(caught.value)


def test_reading_changes_nothing_on_disk(saved):
    workdir, state = saved
    (workdir / "checkpoints" / "9.orbax-checkpoint-tmp").mkdir()

    def snapshot():
        return {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}

    before = snapshot()
    reader = CheckpointReader(workdir)
    reader.restore(reader.latest() or 0, state)
    reader.describe("latest")
    assert snapshot() == before


def test_an_absent_checkpoint_is_refused_with_those_that_exist(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"no complete checkpoint 8 \(there are: 7\)"):
        CheckpointReader(saved[0]).describe(8)
    with pytest.raises(CheckpointError, match=r"no complete checkpoint latest \(there are: none\)"):
        CheckpointReader(tmp_path / "empty").describe("latest")
    with pytest.raises(CheckpointError, match="--step newest is not a number"):
        CheckpointReader(saved[0]).resolve("newest")
    with pytest.raises(ConfigError, match="best_metric is not set"):
        CheckpointReader(saved[0]).best()


def test_an_empty_array_is_refused_by_name(tmp_path):
    store = CheckpointStore(tmp_path, CONFIG)
    with pytest.raises(CheckpointError, match="params/rays has no elements"):
        store.save(1, {"params": {"rays": jnp.zeros((0, 3))}}, {})
    store.close()


def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path):
    (tmp_path / "run").write_text("a file in the way")
    with pytest.raises(CheckpointError, match="cannot be written by host 0"):
        CheckpointStore(tmp_path / "run", CONFIG)

"""V-JEPA3D as a task of the training core: updates, target encoder, randomness, data."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.config import Config, DataConfig, MaskConfig, ModelConfig, TransformerConfig
from jepa3d.inputs import covered_tokens, model_inputs
from jepa3d.task import JepaTask, make_task
from training.config import EmaConfig, MeshConfig, OptimizerConfig
from training.errors import ConfigError, InputError
from training.loss import Context
from training.mesh import Layout, make_mesh
from training.program import Program

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODEL = ModelConfig(
    volume=(8, 32, 32),
    patch=(4, 8, 8),
    encoder=TransformerConfig(16, 2, 2),
    predictor=TransformerConfig(8, 1, 2),
)
MASK = MaskConfig(blocks=4, context_tokens=12, target_tokens=16)
CONFIG = Config(
    "jepa3d",
    batch_size=8,
    model=MODEL,
    masks=(MASK,),
    ema=EmaConfig("constant", 0.9),
    optimizer=OptimizerConfig(learning_rate=1e-3),
    mesh=MeshConfig(data=1),
)
TASK = JepaTask(CONFIG, (MASK,))


def batch_of(count=8, seed=0):
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, 256, (count, *MODEL.volume), dtype=np.uint8)
    return {
        "volume": volume,
        "foreground": rng.random((count, *MODEL.grid)) > 0.5,
        "valid_box": np.tile(np.array([[0, n] for n in MODEL.volume], np.int32), (count, 1, 1)),
        "mean": volume.mean(axis=(1, 2, 3)).astype(np.float32) / 255,
        "std": volume.std(axis=(1, 2, 3)).astype(np.float32) / 255,
        "scanner": np.zeros(count, np.int32),
        "position": np.arange(count, dtype=np.uint32) + 40,
        "index": np.arange(count, dtype=np.int32),
    }


@functools.cache
def program_on(devices, accumulation):
    config = dataclasses.replace(CONFIG, accumulation=accumulation)
    layout = Layout(make_mesh(MeshConfig(data=devices), jax.devices()[:devices]))
    return Program(dataclasses.replace(TASK, config=config), layout)


def updated(batch=None, devices=1, accumulation=1):
    """State and metrics after one update with a batch."""
    program = program_on(devices, accumulation)
    with jax.set_mesh(program.layout.mesh):
        batches = program.layout.put_batches([batch or batch_of()], 8)
        state, read = program.step(program.initial_state(), batches)
        (row,) = read()
    return state, row


@pytest.fixture(scope="module")
def reference():
    return updated()


def assert_close(a, b, tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=0, atol=tolerance)


def test_accumulation_over_four_parts_makes_the_same_update(reference):
    """Masks and views belong to the example, not to the micro-batch that it falls into."""
    state, row = updated(accumulation=4)
    assert row["loss"] == pytest.approx(reference[1]["loss"], rel=1e-6)
    # Adam divides by the root of the second moment: compare what it gets, and then the update.
    assert_close(state.opt_state.mu, reference[0].opt_state.mu, 1e-6)
    assert row["grad_norm"] == pytest.approx(reference[1]["grad_norm"], rel=1e-5)


def test_four_devices_make_the_update_of_one(reference):
    state, row = updated(devices=4)
    assert row["loss"] == pytest.approx(reference[1]["loss"], rel=1e-6)
    assert_close(state.opt_state.mu, reference[0].opt_state.mu, 1e-6)


def test_the_target_is_the_average_of_the_encoder_and_is_in_no_optimizer_group(reference):
    state, row = reference
    program = program_on(1, 1)
    with jax.set_mesh(program.layout.mesh):
        start = program.initial_state().params
    assert jax.tree.structure(state.ema) == jax.tree.structure(state.params["encoder"])
    expected = jax.tree.map(
        lambda before, now: 0.9 * before + 0.1 * now, start["encoder"], state.params["encoder"]
    )
    assert_close(state.ema, expected, 1e-6)
    assert row["ema_update_norm"] > 0
    assert set(jax.tree.leaves(TASK.optimizer_groups(state.params))) == {"encoder", "predictor"}


def test_the_targets_are_those_of_the_average_and_carry_no_gradient():
    """With a predictor that gives nothing, the loss is of the targets alone."""
    params, model_state = jax.jit(TASK.init)(jax.random.key(1))
    silenced = {
        **params["predictor"],
        "proj_out": jax.tree.map(jnp.zeros_like, params["predictor"]["proj_out"]),
    }

    def loss(encoder):
        context = Context(encoder, model_state, jnp.int32(0), jax.random.key(2))
        batch = jax.tree.map(jnp.asarray, batch_of())
        everything = {"encoder": params["encoder"], "predictor": silenced}
        return TASK.loss(everything, context, batch, jax.random.key(3)).terms["prediction"].sum

    loss_and_gradients = jax.jit(jax.value_and_grad(loss))
    value, gradients = loss_and_gradients(params["encoder"])
    assert all(not np.any(np.asarray(g)) for g in jax.tree.leaves(gradients))
    other, _ = jax.jit(TASK.init)(jax.random.key(4))
    assert loss_and_gradients(other["encoder"])[0] != value


def test_views_and_masks_follow_the_position_in_the_stream():
    one, moved = batch_of(), batch_of()
    moved["position"] = moved["position"] + 8
    _, first = updated(one)
    _, again = updated(batch_of())
    _, other = updated(moved)
    assert first["loss"] == again["loss"] != other["loss"]


def test_without_augmentation_a_volume_is_only_normalized():
    batch = jax.tree.map(jnp.asarray, batch_of(2))
    volumes = jax.jit(lambda batch: model_inputs(batch, None, CONFIG).volumes)(batch)
    np.testing.assert_allclose(np.asarray(volumes).mean(axis=(1, 2, 3, 4)), 0, atol=1e-4)
    np.testing.assert_allclose(np.asarray(volumes).std(axis=(1, 2, 3, 4)), 1, atol=1e-3)
    assert not TASK.without_augmentation().augmented


def test_empty_regions_do_not_blow_the_gradient_up():
    """Padding around a small scan: the gradient norm stays of the order of one."""
    batch = batch_of()
    batch["volume"][:, 2:] = 12
    batch["volume"][:, :, 16:] = 12
    _, row = updated(batch)
    assert 0 < row["grad_norm"] < 1e4


def test_the_pixels_of_padding_change_nothing_but_what_sees_them():
    """A token that the scan covers by less than half is padding; the loss never asks for it."""
    box = jnp.array([[0, 8], [0, 32], [0, 20]])
    covered = np.asarray(covered_tokens(box, MODEL.grid, MODEL.patch))
    np.testing.assert_array_equal(covered, np.broadcast_to([True, True, True, False], (2, 4, 4))[:])
    assert covered_tokens(box.at[2, 1].set(19), MODEL.grid, MODEL.patch).sum() == 2 * 4 * 2


def test_the_shares_of_the_masks_are_logged(reference):
    _, row = reference
    assert 0 < row["mask/retina_of_context"] < row["mask/retina_of_targets"] < 1
    assert row["mask/padding_of_targets"] == 0.0


def test_a_config_without_a_target_encoder_is_refused():
    with pytest.raises(ConfigError, match="target encoder"):
        make_task(dataclasses.replace(CONFIG, ema=EmaConfig("none")))


def test_masks_that_do_not_fit_the_grid_are_refused():
    large = dataclasses.replace(MASK, context_tokens=30)
    with pytest.raises(ConfigError, match="exceed the 32 tokens"):
        make_task(dataclasses.replace(CONFIG, masks=(large,)))


def test_a_missing_data_folder_is_named():
    config = dataclasses.replace(CONFIG, data=DataConfig(folder="nowhere/records"))
    with pytest.raises(InputError, match="nowhere/records"):
        make_task(config).sources()

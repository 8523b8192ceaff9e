"""The optimizer against optax, its rules by name, and the norms against hand values."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import GroupConfig, OptimizerConfig, ScheduleConfig
from training.errors import ConfigError
from training.optimizer import (
    FROZEN,
    build_optimizer,
    clip_scale,
    global_norm,
    group_norms,
    label_by_rules,
)
from training.paths import named_leaves

PARAMS = {
    "embed": {"kernel": np.ones((4, 6)), "bias": np.ones(6)},
    "block": {"attention": {"kernel": np.ones((6, 6))}, "norm": {"scale": np.ones(6)}},
    "head": {"kernel": np.ones((6, 2))},
}
STACKED = jax.tree.map(lambda x: np.stack([x] * 3), PARAMS)


def all_labels(params):
    return jax.tree.map(lambda _: "all", params)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_updates_over_several_steps_are_those_of_optax_adamw(new_key, weight_decay):
    config = OptimizerConfig(learning_rate=3e-3, b2=0.95, weight_decay=weight_decay)
    params = jax.tree.map(lambda x: jax.random.normal(new_key(), x.shape), PARAMS)
    ours = build_optimizer(config, all_labels(params), 20)
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
    schedule = ours.schedules["all"]
    theirs = optax.adamw(schedule, b2=0.95, weight_decay=weight_decay, mask=mask)
    state, reference, moved = ours.init(params), theirs.init(params), params
    for step in range(5):
        gradients = jax.tree.map(lambda x: jax.random.normal(new_key(), x.shape), params)
        updates, state, rates = ours.update(gradients, state, params, jnp.int32(step))
        params = optax.apply_updates(params, updates)
        changes, reference = theirs.update(gradients, reference, moved)
        moved = optax.apply_updates(moved, changes)
        assert float(rates["all"]) == float(schedule(step))
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(moved)):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_without_bias_correction_the_first_steps_are_those_of_the_plain_moments():
    """Hand values for gradients 2, 2: m = 0.2, 0.38 and v = 0.004, 0.007996."""
    flat = ScheduleConfig("constant")
    config = OptimizerConfig(learning_rate=1.0, weight_decay=0.0, schedule=flat)
    params = {"kernel": jnp.zeros(3)}
    optimizer = build_optimizer(replace(config, bias_correction=False), all_labels(params), 10)
    state, gradients = optimizer.init(params), {"kernel": jnp.full(3, 2.0)}
    for m, v in ((0.2, 0.004), (0.38, 0.007996)):
        updates, state, _ = optimizer.update(gradients, state, params, jnp.int32(0))
        np.testing.assert_allclose(updates["kernel"], -m / np.sqrt(v), rtol=1e-5)
        np.testing.assert_allclose(state.nu["kernel"], v, rtol=1e-5)


def test_each_group_has_its_own_rate_and_decay():
    labels = label_by_rules(PARAMS, [("head/.*", "head"), (".*", "body")])
    flat = ScheduleConfig("constant")
    config = OptimizerConfig(
        learning_rate=1e-2,
        weight_decay=0.0,
        schedule=flat,
        groups=(GroupConfig("head", learning_rate=1e-3, weight_decay=0.5),),
    )
    optimizer = build_optimizer(config, labels, 100)
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    params = jax.tree.map(jnp.asarray, PARAMS)
    updates, _, rates = optimizer.update(gradients, optimizer.init(params), params, jnp.int32(0))
    assert {k: float(v) for k, v in rates.items()} == pytest.approx({"head": 1e-3, "body": 1e-2})
    # Adam's first direction is the sign of the gradient; only the head's kernel is decayed by 0.5.
    np.testing.assert_allclose(updates["head"]["kernel"], -1e-3 * 1.5, rtol=1e-5)
    np.testing.assert_allclose(updates["embed"]["kernel"], -1e-2, rtol=1e-5)


def test_decay_of_zero_is_a_setting_of_a_group():
    labels = label_by_rules(PARAMS, [("head/.*", "head"), (".*", "body")])
    groups = (GroupConfig("head", weight_decay=0.0),)
    optimizer = build_optimizer(OptimizerConfig(weight_decay=0.5, groups=groups), labels, 100)
    assert optimizer.weight_decay == {"head": 0.0, "body": 0.5}


@pytest.mark.parametrize("params", [PARAMS, STACKED], ids=["layers", "stacked layers"])
def test_decay_goes_by_name_also_where_stacked_layers_have_another_rank(params):
    table = build_optimizer(OptimizerConfig(), all_labels(params), 10).decay_table()
    assert {path for path, _, decayed in table if decayed} == {
        "embed/kernel",
        "block/attention/kernel",
        "head/kernel",
    }
    assert len(table) == len(jax.tree.leaves(params))


def test_the_first_matching_rule_counts():
    rules = [("block/.*", "block"), (".*kernel", "kernel"), (".*", "rest")]
    labels = label_by_rules(PARAMS, rules)
    assert labels == {
        "embed": {"kernel": "kernel", "bias": "rest"},
        "block": {"attention": {"kernel": "block"}, "norm": {"scale": "block"}},
        "head": {"kernel": "kernel"},
    }


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ([("head/.*", "head")], "no optimizer group rule matches the parameter block/attention"),
        ([("haed/.*", "head"), (".*", "body")], "head"),
        ([("head/.*", "a"), ("decoder/.*", "a"), (".*", "b")], "'decoder/.\\*'"),
        ([(".*", "all"), ("head/.*", "all")], "'head/.\\*'"),
    ],
)
def test_every_leaf_needs_a_rule_and_every_rule_a_leaf(rules, sentence):
    with pytest.raises(ConfigError, match=sentence):
        label_by_rules(PARAMS, rules)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (OptimizerConfig(groups=(GroupConfig("heads"),)), "'heads'.*did you mean head"),
        (OptimizerConfig(groups=(GroupConfig("head"), GroupConfig("head"))), "head.*twice"),
        (OptimizerConfig(learning_rate=0.0), "0 at update 0, so nothing would be learned"),
        (OptimizerConfig(learning_rate=-1e-4), "at update 0"),
        (OptimizerConfig(groups=(GroupConfig("head", learning_rate=0.0),)), "head: the learning"),
        (OptimizerConfig(decay_rules=(("head/.*", True),)), "no weight decay rule matches"),
        (OptimizerConfig(decay_rules=((".*[", True),)), "weight decay rules: '.*' is not a reg"),
    ],
)
def test_settings_that_would_not_train_are_refused(config, sentence):
    labels = label_by_rules(PARAMS, [("head/.*", "head"), (".*", "body")])
    with pytest.raises(ConfigError, match=sentence):
        build_optimizer(config, labels, 100)


def test_frozen_leaves_have_neither_moments_nor_updates():
    labels = label_by_rules(PARAMS, [("embed/.*", FROZEN), (".*", "rest")])
    optimizer = build_optimizer(OptimizerConfig(weight_decay=0.5), labels, 100)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state, trained = optimizer.init(params), optimizer.trained(params)
    frozen = {path for path, label in named_leaves(labels).items() if label == FROZEN}
    assert frozen and not frozen & named_leaves(state.mu).keys()
    gradients = jax.tree.map(jnp.ones_like, trained)
    updates, state, _ = optimizer.update(gradients, state, trained, jnp.int32(0))
    moved = optimizer.whole(jax.tree.map(jnp.add, trained, updates), params)
    assert jax.tree.structure(moved) == jax.tree.structure(params)
    for path, leaf in named_leaves(moved).items():
        same = np.array_equal(leaf, named_leaves(params)[path])
        assert same == (path in frozen), path
    decayed = {path for path, _, decays in optimizer.decay_table() if decays}
    assert not decayed & frozen


def test_a_model_that_is_frozen_as_a_whole_is_refused():
    labels = jax.tree.map(lambda _: FROZEN, PARAMS)
    with pytest.raises(ConfigError, match="nothing to train"):
        build_optimizer(OptimizerConfig(), labels, 100)


def test_bias_correction_is_a_matter_of_the_group():
    """Gradient 1: the corrected direction is 1 from the start, the plain one 0.1 / sqrt(0.001)."""
    flat = ScheduleConfig("constant")
    plain = GroupConfig("body", bias_correction=False)
    config = OptimizerConfig(1.0, weight_decay=0.0, schedule=flat, groups=(plain,))
    params = {"head": jnp.zeros(2), "body": jnp.zeros(2)}
    optimizer = build_optimizer(config, {"head": "head", "body": "body"}, 10)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _, _ = optimizer.update(ones, optimizer.init(params), params, jnp.int32(0))
    np.testing.assert_allclose(updates["head"], -1.0, rtol=1e-5)
    np.testing.assert_allclose(updates["body"], -0.1 / np.sqrt(1e-3), rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=7, max_size=7))
def test_norms_are_those_of_numpy_in_double_precision(values):
    x = np.asarray(values, np.float32)
    tree = {"a": jnp.asarray(x[:3]), "b": {"c": jnp.asarray(x[3:5]), "d": jnp.asarray(x[5:])}}
    exact = np.sqrt(np.sum(np.float64(x) ** 2))
    np.testing.assert_allclose(global_norm(tree), exact, rtol=1e-5, atol=1e-18)
    norms = group_norms(tree, {"a": "one", "b": {"c": "two", "d": "two"}})
    together = np.hypot(float(norms["one"]), float(norms["two"]))
    np.testing.assert_allclose(together, exact, rtol=1e-5, atol=1e-18)


def test_the_norm_of_bfloat16_gradients_is_taken_in_float32():
    tree = [jnp.full((1000,), 0.1, jnp.bfloat16)]
    exact = np.sqrt(1000.0) * float(jnp.bfloat16(0.1))
    assert global_norm(tree).dtype == jnp.float32
    np.testing.assert_allclose(global_norm(tree), exact, rtol=1e-6)


def test_clipping_only_shortens():
    for norm in (0.0, 0.5, 1.0, 7.0, 1e20):
        scale = float(clip_scale(jnp.float32(norm), 1.0))
        assert scale == pytest.approx(min(1.0, 1.0 / (norm + 1e-6)))
        assert float(clip_scale(jnp.float32(norm), None)) == 1.0

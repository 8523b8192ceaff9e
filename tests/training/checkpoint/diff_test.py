"""The comparison of a checkpoint with a model, and the words in which it is told."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
import pytest

from training.checkpoint.diff import (
    LeafSpec,
    SavedDescription,
    check_resume,
    compare,
    compare_subset,
    config_changes,
    leaf_specs,
    select,
)
from training.errors import CheckpointError, ConfigError
from training.state import new_state


def sdf_params(width: int, layers: int = 4, head: tuple[str, ...] = ("kernel", "bias")) -> dict:
    shapes = {"kernel": (3, 3), "bias": (3,)}
    layer = {"kernel": jnp.zeros((width, width)), "bias": jnp.zeros((7,))}
    params = {"sdf": {f"layer_{index}": layer for index in range(layers)}}
    if head:
        params["render"] = {"head": {name: jnp.zeros(shapes[name]) for name in head}}
    return params


def state_of(params: dict, with_ema: bool = False):
    """Abstract train state with AdamW moments."""

    def create():
        moments = optax.adamw(1e-3).init(params)
        ema = params if with_ema else None
        return new_state(params, None, moments, ema, jax.random.key(0))

    return jax.eval_shape(create)


def saved_from(state, config=None) -> SavedDescription:
    return SavedDescription("runs/stage1/checkpoints/48000", 48000, leaf_specs(state), config or {})


def test_an_equal_state_gives_an_empty_diff():
    state = state_of(sdf_params(8), with_ema=True)
    diff = compare(saved_from(state), state)
    assert diff.empty
    assert diff.text() == "checkpoint  runs/stage1/checkpoints/48000\nfits the model\n"
    diff.require_empty("never shown")


def test_paths_join_fields_keys_and_indices_and_keys_are_words():
    leaves = leaf_specs(state_of(sdf_params(8, layers=1)))
    assert leaves["params/sdf/layer_0/kernel"] == LeafSpec((8, 8), "float32")
    assert leaves["opt_state/0/mu/sdf/layer_0/bias"] == LeafSpec((7,), "float32")
    assert leaves["key"] == LeafSpec((2,), "uint32")
    assert leaves["step"] == LeafSpec((), "int32")


GOLDEN = """\
checkpoint  runs/stage1/checkpoints/48000
does not fit the model

  shape    params/sdf/layer_{0..3}/kernel  saved (256, 256)  model (32, 32)  4 arrays
  shape    opt_state/.../mu, .../nu        same as above                     8 arrays
  missing  params/render/head/bias                           model (3,)      1 array
  missing  opt_state/.../mu, .../nu        same as above                     2 arrays
  extra    ema/**                          saved only                        9 arrays

first config differences:  model.sdf.width 256 -> 32   model.feature 256 -> 32
"""


def test_a_narrow_model_on_a_wide_checkpoint_reads_as_documented():
    saved = saved_from(
        state_of(sdf_params(256, head=("kernel",)), with_ema=True),
        {"model": {"sdf": {"width": 256}, "feature": 256, "layers": (1, 2)}},
    )
    now = {"model": {"sdf": {"width": 32}, "feature": 32, "layers": [1, 2]}}
    assert compare(saved, state_of(sdf_params(32)), now).text() == GOLDEN


def test_whole_missing_layers_are_one_line_and_averages_repeat_it():
    saved = saved_from(state_of(sdf_params(8, layers=4), with_ema=True))
    text = compare(saved, state_of(sdf_params(8, layers=6), with_ema=True)).text()
    lines = [line.split() for line in text.splitlines()[3:]]
    assert lines == [
        ["missing", "params/sdf/layer_{4..5}/**", "model", "only", "4", "arrays"],
        ["missing", "opt_state/.../mu,", ".../nu", "same", "as", "above", "8", "arrays"],
        ["missing", "ema", "same", "as", "above", "4", "arrays"],
    ]


def test_numbers_with_gaps_are_listed_and_two_levels_are_collapsed():
    def tree(rows: int, changed: tuple[int, ...]) -> dict:
        return {
            f"stage_{i}": [jnp.zeros((rows if i in changed else 1, 2)) for _ in range(3)]
            for i in range(6)
        }

    text = compare(
        saved_from({"params": tree(4, (0, 2, 5))}), {"params": tree(8, (0, 2, 5))}
    ).text()
    assert "params/stage_{0,2,5}/{0..2}  saved (4, 2)  model (8, 2)  9 arrays" in text


def test_a_different_dtype_is_a_finding_unless_listed():
    saved = saved_from({"params": {"count": jnp.zeros((2,), jnp.int32)}})
    model = {"params": {"count": jnp.zeros((2,), jnp.float32)}}
    diff = compare(saved, model)
    assert "dtype  params/count  saved int32  model float32  1 array" in diff.text()
    assert compare(saved, model, casts=("params/.*",)).empty
    with pytest.raises(CheckpointError, match=r"casts entry 'nothing' matches no array"):
        compare(saved, model, casts=("nothing",))


def test_another_key_implementation_is_a_different_shape():
    saved = saved_from({"key": jax.random.key(0, impl="rbg")})
    assert "key  saved (4,)  model (2,)" in compare(saved, {"key": jax.random.key(0)}).text()


def test_the_error_carries_the_advice_and_the_table():
    saved = saved_from({"params": {"kernel": jnp.zeros((2, 2))}})
    with pytest.raises(CheckpointError, match=r"does not fit the model; do this\n\ncheckpoint  ru"):
        compare(saved, {"params": {"kernel": jnp.zeros((3, 2))}}).require_empty("do this")


class TestSubset:
    saved = saved_from(state_of(sdf_params(8, head=("kernel",)), with_ema=True))
    # Has a head/bias that the checkpoint lacks.
    model: ClassVar = {"params": sdf_params(8)}

    def test_only_the_named_subtrees_count(self):
        paths = select(self.saved, self.model)
        assert all(path.startswith("params/") for path in paths)
        assert not compare_subset(self.saved, self.model).empty

    def test_excluded_leaves_are_not_compared(self):
        assert compare_subset(self.saved, self.model, exclude=(r".*/head/bias",)).empty

    def test_included_leaves_alone_are_compared(self):
        assert compare_subset(self.saved, self.model, include=(r"params/sdf/.*",)).empty
        chosen = select(self.saved, self.model, include=(r"params/sdf/.*",))
        assert len(chosen) == 8

    def test_a_leaf_that_the_model_lacks_must_be_excluded_by_name(self):
        smaller = {"params": sdf_params(8, head=())}
        diff = compare_subset(self.saved, smaller)
        assert "extra  params/render/head/kernel" in diff.text()
        assert compare_subset(self.saved, smaller, exclude=(r"params/render/.*",)).empty

    @pytest.mark.parametrize(("key", "lists"), [("init_include", 0), ("init_exclude", 1)])
    def test_an_entry_that_matches_nothing_is_refused(self, key, lists):
        entries = [(r"params/.*",), ()]
        entries[lists] = (*entries[lists], r"params/encodr/.*")
        with pytest.raises(CheckpointError, match=rf"checkpoint\.{key} entry 'params/encodr"):
            select(self.saved, self.model, *entries)

    def test_lists_that_leave_nothing_are_refused(self):
        with pytest.raises(CheckpointError, match="leave no array"):
            select(self.saved, self.model, (), (r".*",))

    def test_a_broken_regex_is_named(self):
        with pytest.raises(ConfigError, match=r"init_exclude entry '\(' is no regex"):
            select(self.saved, self.model, (), ("(",))


class TestResume:
    config: ClassVar = {
        "system": "splats",
        "batch_size": 8,
        "model": {"width": 4, "rates": (1, 2)},
        "optimizer": {"learning_rate": 1e-3, "schedule": {"kind": "constant"}},
        "log": {"every": 10},
    }

    def changed(self, **changes) -> dict:
        return {**self.config, **changes}

    def test_tuples_equal_their_json_form(self):
        saved = self.changed(model={"width": 4, "rates": [1, 2]})
        assert check_resume(saved, self.config) == []

    def test_what_does_not_decide_the_result_may_change(self):
        changes = check_resume(self.config, self.changed(log={"every": 1}))
        assert changes == [("log.every", 10, 1)]

    def test_every_frozen_change_is_listed(self):
        now = self.changed(batch_size=16, model={"width": 5, "rates": (1, 2)})
        with pytest.raises(ConfigError, match=r"batch_size 8 -> 16, model.width 4 -> 5"):
            check_resume(self.config, now)

    def test_a_frozen_prefix_ends_at_a_dot(self):
        saved, now = {"model": {}, "modeling": 1}, {"model": {}, "modeling": 2}
        assert check_resume(saved, now) == [("modeling", 1, 2)]

    def test_allowed_keys_may_change(self):
        now = self.changed(batch_size=16)
        assert check_resume(self.config, now, allow=("batch_size",)) == []

    def test_a_new_schedule_is_refused(self):
        optimizer = {"learning_rate": 1e-3, "schedule": {"kind": "warmup_cosine"}}
        with pytest.raises(ConfigError, match=r"optimizer\.schedule\.kind"):
            check_resume(self.config, self.changed(optimizer=optimizer))

    def test_added_and_removed_keys_are_changes(self):
        assert config_changes({"a": 1, "b": {}}, {"c": {"d": 2}}) == [
            ("c.d", None, 2),
            ("a", 1, None),
            ("b", {}, None),
        ]


def test_descriptions_are_immutable():
    saved = saved_from({"params": jnp.zeros(1)})
    with pytest.raises(dataclasses.FrozenInstanceError):
        saved.step = 3

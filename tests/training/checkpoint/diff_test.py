"""The comparison of a checkpoint with a model, and the words in which it is told."""

from __future__ import annotations

import dataclasses
import json
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
    flat_config,
    leaf_specs,
    select,
)
from training.config import GroupConfig, OptimizerConfig, TrainConfig
from training.errors import CheckpointError, ConfigError
from training.registry import config_class
from training.settings import resumable
from training.state import new_state
from training.typed import build, plain


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


def test_a_different_dtype_is_a_finding():
    saved = saved_from({"params": {"count": jnp.zeros((2,), jnp.int32)}})
    model = {"params": {"count": jnp.zeros((2,), jnp.float32)}}
    diff = compare(saved, model)
    assert "dtype  params/count  saved int32  model float32  1 array" in diff.text()


@pytest.mark.parametrize("model", [(3, 2), (6,), (1, 2, 3), (2, 3, 1), ()])
def test_every_other_shape_is_a_finding_also_with_as_many_elements(model):
    saved = saved_from({"params": {"kernel": jnp.zeros((2, 3))}})
    text = compare(saved, {"params": {"kernel": jnp.zeros(model)}}).text()
    assert f"shape  params/kernel  saved (2, 3)  model {model}  1 array" in text
    assert not compare_subset(saved, {"params": {"kernel": jnp.zeros(model)}}).empty


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
    config = TrainConfig("toy", optimizer=OptimizerConfig(groups=(GroupConfig("head", 1e-3),)))

    def check(self, *overrides: str, allow: tuple[str, ...] = ()) -> None:
        """Resumes a run of `config` with overrides."""
        saved = json.loads(json.dumps(plain(self.config)))
        check_resume(saved, build(TrainConfig, saved, overrides=overrides), allow)

    def test_the_same_config_may_go_on(self):
        self.check()

    @pytest.mark.parametrize(
        "override",
        [
            "name=other",
            "accumulation=2",
            "updates_per_call=5",
            "mesh.fsdp=4",
            "mesh.rules=(('.*',('fsdp',)),)",
            "loader.workers=1",
            "loader.max_replaced_fraction=0.5",
            "evaluation.every.updates=7",
            "evaluation.every.epochs=2",
            "evaluation.batch_size=7",
            "checkpoint.every.updates=7",
            "checkpoint.keep_latest=7",
            "checkpoint.keep_every=None",
            "checkpoint.best_metric=error",
            "checkpoint.best_mode=min",
            "log.every=7",
            "log.wandb=True",
            "guards.off=loss-spike",
            "guards.spike_factor=7",
        ],
    )
    def test_what_does_not_decide_the_result_may_change(self, override):
        self.check(override)

    @pytest.mark.parametrize(
        ("override", "change"),
        [
            ("seed=1", "config.seed from 0 to 1"),
            ("batch_size=16", "config.batch_size from 32 to 16"),
            ("total.updates=2000", "config.total.updates from 1000 to 2000"),
            ("optimizer.learning_rate=1e-5", "config.optimizer.learning_rate from 0.0001 to 1e-05"),
            ("optimizer.weight_decay=0", "config.optimizer.weight_decay from 0.05 to 0.0"),
            ("optimizer.b1=0.8", "config.optimizer.b1 from 0.9 to 0.8"),
            ("optimizer.b2=0.99", "config.optimizer.b2 from 0.999 to 0.99"),
            ("optimizer.eps=1e-6", "config.optimizer.eps from 1e-08 to 1e-06"),
            ("optimizer.clip_norm=None", "config.optimizer.clip_norm from 1.0 to None"),
            ("optimizer.decay_rules=(('.*',True),)", "config.optimizer.decay_rules from [['(.*/)?"),
            (
                "optimizer.schedule.kind=constant",
                "config.optimizer.schedule.kind from 'warmup_cosine' to 'constant'",
            ),
            (
                "optimizer.groups.head.learning_rate=1",
                "config.optimizer.groups.head.learning_rate from 0.001 to 1.0",
            ),
            (
                "optimizer.groups.new.weight_decay=1",
                "config.optimizer.groups.new.weight_decay from None to 1.0",
            ),
            ("ema.kind=cosine", "config.ema.kind from 'none' to 'cosine'"),
            ("ema.end=0.9", "config.ema.end from 0.9995 to 0.9"),
            ("checkpoint.init_from=/runs/one", "config.checkpoint.init_from from None to '/runs"),
        ],
    )
    def test_everything_else_is_refused_with_both_values_unless_it_is_allowed(
        self, override, change
    ):
        key = change.split()[0].removeprefix("config.")
        with pytest.raises(ConfigError) as caught:
            self.check(override)
        sentence = str(caught.value)
        assert change in sentence and "\n" not in sentence
        assert f"--allow-config-change={key}" in sentence
        group = key.partition(".")[0]
        self.check(override, allow=(group,))
        with pytest.raises(ConfigError):
            self.check(override, allow=("mesh", "loader"))
        if "groups.new" not in override:
            self.check(override, allow=(key,))

    def test_all_refused_changes_are_listed(self):
        with pytest.raises(ConfigError) as caught:
            self.check("seed=1", "log.every=3", "batch_size=16")
        sentence = str(caught.value)
        assert "config.seed from 0 to 1, config.batch_size from 32 to 16; restore these" in sentence
        assert sentence.endswith("--allow-config-change=seed,batch_size")
        assert "log" not in sentence

    def test_a_change_that_is_not_of_an_allowed_key_is_refused_all_the_same(self):
        with pytest.raises(ConfigError, match=r"of config\.seed from 0 to 1; restore this value"):
            self.check("seed=1", "batch_size=16", allow=("batch_size",))

    def test_an_allowed_key_that_does_not_exist_is_refused(self):
        with pytest.raises(ConfigError, match=r"=optimizer\.lr names no key of the config"):
            self.check(allow=("optimizer.lr",))
        with pytest.raises(ConfigError, match=r"=batchsize .*; did you mean batch_size\?"):
            self.check(allow=("batchsize",))
        self.check(allow=("data", "optimizer.schedule", "seed"))

    def test_another_system_is_never_resumed(self):
        with pytest.raises(ConfigError, match="holds a run of splats, not of toy"):
            check_resume(plain(TrainConfig("splats")), self.config, allow=("system",))

    @pytest.mark.parametrize(
        ("system", "free", "bound"),
        [
            (
                "jepa3d",
                ["model.attention", "model.remat", "model.unroll", "data.folder"],
                ["model.dtype", "model.encoder.dim", "mask_preset", "masks", "loss.exponent"],
            ),
            (
                "splats",
                ["render.backend", "render.chunk", "scene.path", "scene.cache", "metrics.lpips"],
                ["render.near", "densify.refine_every", "model.cap_max", "losses.ssim",
                 "optimizer.groups.means.learning_rate", "selective_adam", "scene.split.seed"],
            ),
        ],
    )  # fmt: skip
    def test_systems_free_what_is_a_choice_of_implementation(self, system, free, bound):
        cls = config_class(system)
        known = flat_config(plain(cls(system)))
        for keys, expected in ((free, True), (bound, False)):
            assert all(key in known for key in keys)
            assert {key: resumable(cls, key) for key in keys} == dict.fromkeys(keys, expected)
        assert not resumable(cls, "no.such.key") and not resumable(cls, "model.no_such_key")


def test_added_and_removed_keys_are_changes():
    assert config_changes({"a": 1, "b": {}}, {"c": {"d": 2}}) == [
        ("c.d", None, 2),
        ("a", 1, None),
        ("b", {}, None),
    ]


def test_descriptions_are_immutable():
    saved = saved_from({"params": jnp.zeros(1)})
    with pytest.raises(dataclasses.FrozenInstanceError):
        saved.step = 3


@pytest.mark.parametrize("pattern", ["params/sdf", "params/sdf/layer_0/kern", "sdf/.*"])
def test_a_pattern_stands_for_whole_paths(pattern):
    """One that matched the beginning of a path would take more than was meant."""
    params = {"params": sdf_params(8)}
    with pytest.raises(CheckpointError, match="matches no array"):
        select(saved_from(params), params, include=[pattern])

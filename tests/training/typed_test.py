"""Typed configs: every wrong input gives one sentence with the key's path and what to write."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from training.config import (
    Duration,
    GroupConfig,
    MeshConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from training.errors import ConfigError
from training.typed import apply_overrides, build, parse, plain

CONFIG = TrainConfig(
    "toy",
    optimizer=OptimizerConfig(groups=(GroupConfig("head"), GroupConfig("body"))),
    mesh=MeshConfig(rules=((".*kernel", (None, "model")),)),
)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"batchsize": 8}, "unknown key config.batchsize; did you mean batch_size?"),
        ({"zzz": 8}, "unknown key config.zzz; known are accumulation, batch_size, "),
        (
            {"optimizer": {"learning_rat": 1.0}},
            "unknown key config.optimizer.learning_rat; did you mean learning_rate?",
        ),
        ({"batch_size": 2.5}, "config.batch_size = 2.5 must be of type int"),
        ({"batch_size": True}, "config.batch_size = True must be of type int"),
        ({"batch_size": "8"}, "config.batch_size = '8' must be of type int"),
        ({"batch_size": None}, "config.batch_size = None must be of type int"),
        ({"name": 3}, "config.name = 3 must be of type str"),
        ({"optimizer": {"learning_rate": "1e-4"}}, "config.optimizer.learning_rate = '1e-4'"),
        ({"optimizer": 3}, "config.optimizer must be a group of keys, not 3"),
        ({"guards": {"off": "nonfinite"}}, "config.guards.off = 'nonfinite' must be a sequence"),
        ({"guards": {"off": [1]}}, "config.guards.off[0] = 1 must be of type str"),
        ({"mesh": {"rules": [["a"]]}}, "config.mesh.rules[0] = ['a'] must have 2 entries"),
        ({"optimizer": {"groups": [{}]}}, "config.optimizer.groups[0].name is missing"),
    ],
)
def test_a_wrong_value_of_a_file_is_named_with_its_path(values, sentence):
    with pytest.raises(ConfigError) as caught:
        build(TrainConfig, {"system": "toy", **values})
    assert sentence in str(caught.value)


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match=r"config\.system is missing; set it in the config file"):
        build(TrainConfig, {})


def test_a_config_dict_of_lists_and_integers_becomes_tuples_and_floats():
    values = ConfigDict({"system": "toy", "optimizer": {"learning_rate": 1, "clip_norm": None}})
    values.guards = {"off": ["loss-spike"]}
    config = build(TrainConfig, values.to_dict())
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.optimizer.clip_norm is None
    assert config.guards.off == ("loss-spike",)


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("optimizer.learning_rate=2", "optimizer.learning_rate", 2.0),
        ("optimizer.learning_rate=3e-4", "optimizer.learning_rate", 3e-4),
        ("optimizer.clip_norm=None", "optimizer.clip_norm", None),
        ("batch_size=0x10", "batch_size", 16),
        ("mesh.data=-1", "mesh.data", -1),
        ("name=3", "name", "3"),
        ("name=a=b.c", "name", "a=b.c"),
        ("log.wandb=true", "log.wandb", True),
        ("guards.off=z,w", "guards.off", ("z", "w")),
        ("guards.off=z, w", "guards.off", ("z", "w")),
        ("guards.off=z", "guards.off", ("z",)),
        ("guards.off=('z','w')", "guards.off", ("z", "w")),
        ("guards.off=['z']", "guards.off", ("z",)),
        ("guards.off=", "guards.off", ()),
        ("guards.off=()", "guards.off", ()),
        ("checkpoint.init_from=/some/where", "checkpoint.init_from", "/some/where"),
        ("checkpoint.init_from=None", "checkpoint.init_from", None),
        ("optimizer.groups.1.weight_decay=0.5", "optimizer.groups.1.weight_decay", 0.5),
        ("mesh.rules=(('a',('fsdp',None)),)", "mesh.rules", (("a", ("fsdp", None)),)),
        ("mesh.rules=", "mesh.rules", ()),
        (
            "optimizer.groups.0.schedule={'kind': 'constant'}",
            "optimizer.groups.0.schedule",
            ScheduleConfig("constant"),
        ),
    ],
)
def test_override_text_is_read_by_the_type_of_its_field(assignment, path, value):
    node = apply_overrides(CONFIG, [assignment])
    for key in path.split("."):
        node = node[int(key)] if isinstance(node, tuple) else getattr(node, key)
    assert node == value and type(node) is type(value)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("batch_siez=8", "unknown key config.batch_siez; did you mean batch_size?"),
        (
            "optimizer.learning_rte=1",
            "unknown key config.optimizer.learning_rte; did you mean learning_rate?",
        ),
        ("batch_size=2.5", "config.batch_size = 2.5 must be of type int"),
        ("batch_size=1e3", "config.batch_size = 1000.0 must be of type int"),
        ("batch_size=abc", "config.batch_size=abc cannot be read as int"),
        ("batch_size=", "config.batch_size= cannot be read as int"),
        ("batch_size=True", "config.batch_size = True must be of type int"),
        ("batch_size=None", "config.batch_size = None must be of type int"),
        ("optimizer.learning_rate=fast", "config.optimizer.learning_rate=fast cannot be read"),
        ("optimizer.learning_rate=(1,2)", "config.optimizer.learning_rate = (1, 2) must be"),
        ("log.wandb=1", "config.log.wandb=1 must be True or False"),
        ("optimizer=adam", "config.optimizer is a group of keys; set one of learning_rate, "),
        ("batch_size.x=1", "config.batch_size = 32 has no key 'x' in it"),
        ("batch_size", "--config.batch_size has no value; write --config.batch_size=VALUE"),
        ("optimizer.groups.7.name=x", "config.optimizer.groups is a sequence of 2"),
        (
            "optimizer.groups.head.name=x",
            "set config.optimizer.groups or config.optimizer.groups.0",
        ),
        ("guards.off=(z,w)", "config.guards.off=(z,w) cannot be read as tuple[str, ...]"),
        ("=3", "unknown key config.;"),
    ],
)
def test_a_wrong_override_gives_one_sentence_with_the_path(assignment, sentence):
    with pytest.raises(ConfigError) as caught:
        apply_overrides(CONFIG, [assignment])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_that_depend_on_each_other_may_come_in_any_order():
    pair = ["total.updates=None", "total.epochs=2"]
    for assignments in (pair, pair[::-1]):
        assert apply_overrides(CONFIG, assignments).total == Duration(epochs=2.0)
    twice = apply_overrides(CONFIG, ["seed=1", "seed=2"])
    assert twice.seed == 2 and CONFIG.seed == 0


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_every_number_survives_the_way_through_the_command_line(number):
    kind = type(number)
    assert parse(kind, repr(number), "config.x") == number
    assert parse(kind | None, repr(number), "config.x") == number


@given(
    st.text(
        alphabet=st.characters(
            blacklist_characters=",()[]", blacklist_categories=("Zs", "Cc", "Cs")
        ),
        min_size=1,
    )
)
def test_every_text_is_a_string_and_alone_a_sequence_of_one(text):
    assert parse(str, text, "config.x") == text
    assert parse(tuple[str, ...], text, "config.x") == (text,)


def test_plain_values_build_the_same_config_again():
    assert build(TrainConfig, plain(CONFIG)) == CONFIG
    assert dataclasses.asdict(build(TrainConfig, plain(CONFIG))) == dataclasses.asdict(CONFIG)


@pytest.mark.parametrize(
    ("duration", "updates"),
    [
        (Duration(updates=7), 7),
        (Duration(epochs=1), 100 // 8),
        (Duration(epochs=0.5), 6),
        (Duration(examples=80), 10),
        (Duration(examples=87), 10),
    ],
)
def test_durations_become_whole_updates(duration, updates):
    assert duration.resolve("total", batch_size=8, train_examples=100) == updates


@pytest.mark.parametrize(
    ("duration", "sentence"),
    [
        (Duration(), "config.total must set exactly one of updates, epochs and examples"),
        (Duration(updates=1, epochs=1), r"sets \['epochs', 'updates'\]; set the others to None"),
        (Duration(examples=7), r"config\.total\.examples = 7 is less than one update \(batch 8"),
        (Duration(updates=0), r"config\.total\.updates = 0 is less than one update"),
        (Duration(updates=-5), r"config\.total\.updates = -5 is less than one update"),
    ],
)
def test_a_duration_without_a_meaning_is_refused(duration, sentence):
    with pytest.raises(ConfigError, match=sentence):
        duration.resolve("total", batch_size=8, train_examples=100)

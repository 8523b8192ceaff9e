"""Typed configs: every wrong input gives one sentence with the key's path and what to write."""

from __future__ import annotations

import dataclasses
import math

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
from training.settings import setting
from training.typed import build, parse, plain

VALUES = {
    "system": "toy",
    "optimizer": {"groups": {"head": {}, "body": {"weight_decay": 0.0}}},
    "mesh": {"rules": [(".*kernel", (None, "model"))]},
}
CONFIG = TrainConfig(
    "toy",
    optimizer=OptimizerConfig(groups=(GroupConfig("head"), GroupConfig("body", weight_decay=0.0))),
    mesh=MeshConfig(rules=((".*kernel", (None, "model")),)),
)


def overridden(*assignments):
    return build(TrainConfig, VALUES, overrides=assignments)


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
        ({"optimizer": {"groups": [{}]}}, "config.optimizer.groups[0] = {} must be a group"),
        (
            {"optimizer": {"groups": ["head"]}},
            "config.optimizer.groups[0] = 'head' must be",
        ),
        ({"optimizer": {"groups": "head"}}, "config.optimizer.groups = 'head' must be a sequence"),
        ({"optimizer": {"groups": {"head": 3}}}, "config.optimizer.groups.head must be a group"),
        (
            {"optimizer": {"groups": {"head": {"name": "body"}}}},
            "config.optimizer.groups.head.name = 'body' must be 'head'",
        ),
        (
            {"optimizer": {"groups": [{"name": "head"}, {"name": "head"}]}},
            "config.optimizer.groups names 'head' twice",
        ),
        (
            {"optimizer": {"groups": {"head": {"lr": 1.0}}}},
            "unknown key config.optimizer.groups.head.lr",
        ),
        ({3: 4}, "config has the key 3, which is no name"),
        ({"optimizer": {None: 4}}, "config.optimizer has the key None, which is no name"),
        (
            {"optimizer": {"learning_rate": 10**400}},
            "config.optimizer.learning_rate is larger",
        ),
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
        ("optimizer.groups.body.weight_decay=0.5", "optimizer.groups.1.weight_decay", 0.5),
        ("optimizer.groups.body.learning_rate=0.5", "optimizer.groups.1.weight_decay", 0.0),
        ("optimizer.groups.new.learning_rate=0.5", "optimizer.groups.2.name", "new"),
        ("mesh.rules=(('a',('fsdp',None)),)", "mesh.rules", (("a", ("fsdp", None)),)),
        ("mesh.rules=", "mesh.rules", ()),
        (
            "optimizer.groups.head.schedule.kind=constant",
            "optimizer.groups.0.schedule",
            ScheduleConfig("constant"),
        ),
        ("optimizer.groups.head.schedule=None", "optimizer.groups.0.schedule", None),
    ],
)
def test_override_text_is_read_by_the_type_of_its_field(assignment, path, value):
    node = overridden(assignment)
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
        ("batch_size.x=1", "config.batch_size is a single value; it has no key 'x'"),
        ("batch_size.x.y=1", "config.batch_size is a single value; it has no key 'x.y'"),
        ("batch_size", "--config.batch_size has no value; write --config.batch_size=VALUE"),
        (
            "optimizer.groups=()",
            "config.optimizer.groups has groups by name; set ",
        ),
        ("optimizer.groups.head=x", "set config.optimizer.groups.NAME.KEY=VALUE"),
        ("optimizer.groups.head.name=x", "config.optimizer.groups.head.name = 'x' must be 'head'"),
        ("optimizer.groups.head.lr=1", "unknown key config.optimizer.groups.head.lr"),
        (
            "optimizer.groups.head.schedule=linear",
            "config.optimizer.groups.head.schedule is a",
        ),
        ("optimizer.groups.head.schedule.kind=linear", "must be warmup_cosine, constant, "),
        (
            "optimizer.schedule=None",
            "config.optimizer.schedule is a group of keys; set one of ",
        ),
        ("seed=" + "9" * 5000, "config.seed=99999"),
        ("guards.off=(z,w)", "config.guards.off=(z,w) cannot be read as tuple[str, ...]"),
        ("=3", "unknown key config.;"),
    ],
)
def test_a_wrong_override_gives_one_sentence_with_the_path(assignment, sentence):
    with pytest.raises(ConfigError) as caught:
        overridden(assignment)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_unit_of_a_duration_takes_the_others_back():
    pair = ["total.updates=None", "total.epochs=2"]
    for assignments in (pair, pair[::-1], pair[1:]):
        assert overridden(*assignments).total == Duration(epochs=2.0)
    values = VALUES | {"total": {"examples": 7}}
    assert build(TrainConfig, values).total == Duration(examples=7)
    assert build(TrainConfig, values, overrides=["total.updates=2"]).total == Duration(updates=2)


def test_the_last_of_two_overrides_counts():
    assert overridden("seed=1", "seed=2").seed == 2


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = setting(8, least=2)
    depth: int = 3

    def __post_init__(self):
        if self.width % self.depth == 1:
            raise ConfigError("width and depth do not go together")


@dataclasses.dataclass(frozen=True)
class Outer:
    """Its `inner` has another default than `Inner` has."""

    inner: Inner = Inner(width=6, depth=2)
    optional: Inner | None = None
    groups: tuple[GroupConfig, ...] = (GroupConfig("a", 0.1), GroupConfig("b", 0.2))
    sizes: tuple[int, ...] = setting((4, 4), least=1)


@pytest.mark.parametrize(
    ("values", "overrides", "expected"),
    [
        ({}, (), Outer()),
        ({"inner": {"depth": 4}}, (), Outer(Inner(6, 4))),
        ({"inner": {"depth": 4}}, ("inner.width=12",), Outer(Inner(12, 4))),
        ({"inner": Inner(9, 3)}, (), Outer(Inner(9, 3))),
        ({"inner": Inner(9, 3)}, ("inner.depth=9",), Outer(Inner(9, 9))),
        ({"optional": {"depth": 4}}, (), Outer(optional=Inner(8, 4))),
        ({}, ("optional.depth=4",), Outer(optional=Inner(8, 4))),
        ({"optional": {"depth": 4}}, ("optional=None",), Outer()),
        (
            {"groups": {"b": {"weight_decay": 1.0}}},
            (),
            Outer(groups=(GroupConfig("a", 0.1), GroupConfig("b", 0.2, 1.0))),
        ),
        (
            {"groups": [{"name": "c"}]},
            ("groups.a.learning_rate=0.3",),
            Outer(groups=(GroupConfig("a", 0.3), GroupConfig("b", 0.2), GroupConfig("c"))),
        ),
    ],
)
def test_a_partial_group_is_laid_over_the_default_of_its_field(values, overrides, expected):
    assert build(Outer, values, overrides=overrides) == expected


def test_relations_are_checked_once_everything_is_set():
    relation = pytest.raises(
        ConfigError, match=r"config\.inner: width and depth do not go together"
    )
    with relation:
        build(Outer, {"inner": {"width": 7}})
    assert build(Outer, {"inner": {"width": 7}}, overrides=["inner.depth=4"]).inner == Inner(7, 4)


def test_limits_come_before_relations():
    with pytest.raises(ConfigError, match=r"config\.inner\.width = 1 must be 2 or more"):
        build(Outer, {"inner": {"width": 1}})


def test_limits_of_a_sequence_hold_for_each_entry():
    with pytest.raises(ConfigError, match=r"config\.sizes\[1\] = 0 must be 1 or more"):
        build(Outer, {"sizes": (3, 0)})


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
    assert build(TrainConfig, VALUES) == CONFIG
    assert build(TrainConfig, plain(CONFIG)) == CONFIG
    assert plain(CONFIG)["optimizer"]["groups"]["body"]["weight_decay"] == 0.0
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
        (Duration(epochs=1e-300), r"config\.total\.epochs = 1e-300 is less than one update"),
        (Duration(epochs=math.nan), r"config\.total\.epochs = nan is less than one update"),
        (Duration(epochs=math.inf), r"config\.total\.epochs = inf is .* lower it"),
        (Duration(epochs=1e300), r"config\.total\.epochs = 1e\+300 is .* 500,000,000 at most"),
        (Duration(updates=10**400), r"config\.total\.updates = .* 500,000,000 at most; lower it"),
    ],
)
def test_a_duration_without_a_meaning_is_refused(duration, sentence):
    with pytest.raises(ConfigError, match=sentence):
        duration.resolve("total", batch_size=8, train_examples=100)

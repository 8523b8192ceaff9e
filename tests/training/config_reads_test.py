"""A watched config is the same config, and knows what was read of it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from training.config import (
    Duration,
    EmaConfig,
    GroupConfig,
    LoaderConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from training.config_reads import leaves, unread, verdict, watched
from training.errors import ConfigError
from training.registry import config_class
from training.typed import build, plain

PLAIN = TrainConfig(
    "toy", optimizer=OptimizerConfig(groups=(GroupConfig("head", 0.1), GroupConfig("body")))
)


@pytest.fixture
def config():
    return watched(PLAIN)


def read(config):
    """The paths that were read so far."""
    return set(leaves(config)) - set(unread(config))


def test_it_equals_the_plain_config_in_every_respect(config):
    assert config == PLAIN and config == PLAIN and config == watched(PLAIN)
    assert hash(config) == hash(PLAIN) and {PLAIN: 1}[config] == 1 and {config: 1}[PLAIN] == 1
    assert repr(config) == repr(PLAIN) and plain(config) == plain(PLAIN)
    assert isinstance(config, TrainConfig) and isinstance(config.optimizer, OptimizerConfig)
    assert config != dataclasses.replace(PLAIN, seed=1) != config
    assert config != 3 and config.optimizer != config.loader
    assert config.optimizer.groups == PLAIN.optimizer.groups


@pytest.mark.parametrize("system", ["splats", "jepa3d"])
def test_the_configs_of_the_systems_are_watched_whole(system):
    config = config_class(system)(system)
    assert unread(watched(config)) == list(leaves(config))
    assert hash(watched(config)) == hash(config)


def test_only_what_is_read_counts(config):
    assert read(config) == set()
    assert config.optimizer.schedule.kind == "warmup_cosine"
    assert config.optimizer.groups[0].learning_rate == 0.1
    assert config.loader.workers and config.mesh.rules == ()
    assert read(config) == {
        "optimizer.schedule.kind",
        "optimizer.groups.head.learning_rate",
        "loader.workers",
        "mesh.rules",
    }


def test_properties_read_the_keys_behind_them():
    config = watched(config_class("jepa3d")("jepa3d"))
    assert config.model.grid
    assert read(config) == {"model.volume", "model.patch"}


@pytest.mark.parametrize(
    "look",
    [
        hash,
        repr,
        plain,
        leaves,
        copy.deepcopy,
        pickle.dumps,
        dataclasses.asdict,
        dataclasses.replace,
        lambda config: config == PLAIN,
        lambda config: config == PLAIN,
        lambda config: build(TrainConfig, plain(config)),
        lambda config: functools.lru_cache(lambda key: None)(config.optimizer),
        lambda config: jax.tree.map(lambda leaf: leaf, {"static": config}),
    ],
)
def test_looking_at_a_config_as_a_whole_is_not_reading(config, look):
    look(config)
    assert read(config) == set()


@dataclasses.dataclass(frozen=True)
class Checked:
    width: int = 3
    depth: int = 4

    def __post_init__(self):
        check(self)


def check(config):
    if config.width > config.depth:
        raise ConfigError("too wide")


def test_checks_of_relations_are_not_reading():
    config = watched(Checked())
    dataclasses.replace(config, width=2)
    assert read(config) == set()
    with pytest.raises(ConfigError, match="too wide"):
        dataclasses.replace(config, width=9)
    check(config)
    assert read(config) == {"width", "depth"}


def test_copies_with_changes_note_for_the_same_record(config):
    changed = dataclasses.replace(config, accumulation=2)
    changed = dataclasses.replace(
        changed,
        optimizer=dataclasses.replace(changed.optimizer, groups=changed.optimizer.groups[::-1]),
    )
    assert changed.accumulation == 2 and changed.optimizer.groups[1].name == "head"
    assert changed == dataclasses.replace(PLAIN, accumulation=2, optimizer=changed.optimizer)
    assert changed.optimizer.groups[1].weight_decay is None and changed.ema.kind == "none"
    assert read(config) == {"accumulation", "optimizer.groups.head.weight_decay", "ema.kind"}


def test_what_was_pickled_is_plain_and_equal(config):
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert again == PLAIN and type(again) is TrainConfig
        assert type(again.optimizer.groups[0]) is GroupConfig
        assert again.seed == 0
    assert read(config) == set()


def test_reads_in_other_threads_count_also_while_this_one_compares(config):
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            compared = pool.submit(lambda: config == PLAIN)
            assert pool.submit(lambda: config.loader.prefetch).result() == 2
            assert compared.result()
    assert read(config) == {"loader.prefetch"}


def test_two_watched_configs_do_not_mix(config):
    other = watched(PLAIN)
    assert other.seed == 0
    assert read(other) == {"seed"} and read(config) == set()


def read_all_but(config, *left_out):
    for path in leaves(config):
        if path in left_out:
            continue
        node = config
        for key in path.split("."):
            if isinstance(node, tuple):
                node = next(n for n in node if getattr(n, "name", None) == key)
            else:
                node = getattr(node, key)


class TestVerdict:
    def of(self, config, *left_out):
        config = watched(config)
        read_all_but(config, *left_out)
        return verdict(config)

    def test_a_config_that_is_read_whole_passes(self):
        assert self.of(PLAIN).passed

    def test_a_key_that_was_set_and_that_nothing_reads_is_named_with_its_value(self):
        config = dataclasses.replace(PLAIN, ema=EmaConfig(tau=5.0), total=Duration(epochs=3.0))
        found = self.of(config, "ema.tau", "ema.start")
        assert not found.passed and found.name == "unread-config"
        assert "config.ema.tau = 5.0" in found.sentence and "ema.start" not in found.sentence
        assert "\n" not in found.sentence
        assert "config.total.epochs = 3.0" in self.of(config, "total.epochs").sentence

    def test_a_key_that_keeps_its_default_may_stay_unread(self):
        assert self.of(PLAIN, "ema.tau", "loader.workers", "log.wandb_project").passed
        set_to_default = dataclasses.replace(PLAIN, loader=LoaderConfig(workers=4))
        assert self.of(set_to_default, "loader.workers").passed

    @pytest.mark.parametrize(
        ("group", "path", "passed"),
        [
            (GroupConfig("head", 0.1), "learning_rate", False),
            (GroupConfig("head", 0.1), "weight_decay", True),
            (GroupConfig("head", schedule=ScheduleConfig("constant")), "schedule.kind", False),
            (GroupConfig("head", schedule=ScheduleConfig("constant")), "schedule.decay_fraction",
             True),
        ],
    )  # fmt: skip
    def test_keys_of_a_group_that_has_no_default_are_compared_with_those_of_its_class(
        self, group, path, passed
    ):
        config = TrainConfig("toy", optimizer=OptimizerConfig(groups=(group,)))
        assert self.of(config, f"optimizer.groups.head.{path}").passed == passed

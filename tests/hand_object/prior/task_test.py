"""The prior is trained by the shared loop, as a part of its system."""

from __future__ import annotations

import pytest

from training.errors import ConfigError
from training.registry import config_class, load_config, make_task, system_module


def test_recipe_makes_the_task_of_the_part():
    config = load_config("configs/hand_object/prior_mini.py")
    task = make_task(config)
    assert type(task).__module__ == "hand_object.prior.task"
    assert sum(task.describe().parameter_counts.values()) <= 1_500_000
    example = task.sources().train[0]
    for name, (shape, dtype) in task.describe().batch_keys.items():
        assert example[name].shape == shape and example[name].dtype == dtype


def test_parts_that_cannot_be_trained_are_refused():
    with pytest.raises(ConfigError, match=r"hand_object has no part 'losses' to be trained"):
        config_class("hand_object.losses")
    with pytest.raises(ConfigError, match=r"hand_object has no part 'nothing.at.all' to be"):
        config_class("hand_object.nothing.at.all")
    with pytest.raises(ConfigError, match=r"config.system = 'nobody.prior' is unknown"):
        config_class("nobody.prior")


def test_commands_find_what_the_part_has():
    assert system_module("hand_object.prior", "export").FORMAT == "prior"
    with pytest.raises(ConfigError, match=r"has nothing for 'hand_object.prior'"):
        system_module("hand_object.prior", "predict")
    with pytest.raises(ConfigError, match=r"has nothing for 'nobody.prior'"):
        system_module("nobody.prior", "export")


def test_grid_that_the_network_cannot_halve_is_refused():
    with pytest.raises(ConfigError, match=r"grid.hand_size = 18 must be a multiple of 4"):
        load_config(
            "configs/hand_object/prior_mini.py", ["grid.hand_size=18", "grid.object_size=18"]
        )
    with pytest.raises(ConfigError, match=r"grid.object_size = 32 must be grid.hand_size = 16"):
        load_config("configs/hand_object/prior_mini.py", ["grid.object_size=32"])

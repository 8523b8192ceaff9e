"""Every recipe is a config, with the settings that its docstring claims."""

from pathlib import Path

import pytest

import configs.hand_object
from hand_object.config import preset
from hand_object.loss_config import LossConfig
from training.registry import load_config

RECIPES = Path(configs.hand_object.__file__).parent


def recipe(name, argument=""):
    return load_config(f"{RECIPES / name}.py" + (f":{argument}" if argument else ""))


@pytest.mark.parametrize("name", ["smoke", "fast", "stage1_rgb", "hold"])
def test_a_recipe_is_a_config_of_its_sequence(name):
    assert recipe(name, "some/folder").sequence.path == "some/folder"
    assert recipe(name).sequence.path == "synthetic"


def test_stage_one_has_the_numbers_of_the_original():
    config = recipe("stage1_rgb")
    assert config.model == preset("seed")
    assert config.losses == LossConfig(rgb=1.0, mask=0.1, eikonal=0.1)
    assert config.total.updates == 100 * 400
    rates = {group.name: group.learning_rate for group in config.optimizer.groups}
    assert config.optimizer.clip_norm == 0.5 and rates["networks"] == 1e-4
    assert config.batch_size * config.rays.per_frame == 1280
    assert recipe("stage1_rgb", "folder,hold").model == preset("hold")


def test_groups_of_parameters_that_a_model_lacks_are_left_out():
    assert "planes" not in {group.name for group in recipe("hold").optimizer.groups}
    assert "planes" in {group.name for group in recipe("fast").optimizer.groups}


def test_fast_takes_a_number_of_updates():
    assert recipe("fast", "folder,50").total.updates == 50

"""Every recipe is a config, with the settings that its docstring claims."""

from pathlib import Path

import pytest

import configs.hand_object
from hand_object.config import preset
from hand_object.loss_config import LossConfig
from hand_object.phases import windows
from hand_object.prior import places
from training.errors import ConfigError
from training.registry import load_config, load_stages

RECIPES = Path(configs.hand_object.__file__).parent


def recipe(name, argument=""):
    return load_config(f"{RECIPES / name}.py" + (f":{argument}" if argument else ""))


@pytest.mark.parametrize(
    "name", ["smoke", "fast", "stage1_rgb", "hold", "fast_stage2", "fast_stage3"]
)
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


def test_stage_three_has_the_numbers_of_the_original():
    config = recipe("stage3_contact_temporal", "folder,runs/before")
    rates = {group.name: group.learning_rate for group in config.optimizer.groups}
    assert config.optimizer.clip_norm == 2.0
    assert rates == {"networks": 2e-5, "densities": 2e-5, "poses": pytest.approx(2e-6)}
    phases = config.phases
    assert windows(phases, 8340) == {
        "sds": (0, 2000),
        "contact": (2000, 8340),
        "temporal": (5000, 8340),
    }
    assert phases.sds.coefficient == 10
    contact, temporal = phases.contact, phases.temporal
    assert (contact.coefficient, contact.penetration, contact.attraction) == (1, 5, 1)
    assert contact.unit == 0.005
    assert (temporal.coefficient, temporal.velocity, temporal.acceleration) == (0.01, 0.005, 0.001)
    assert temporal.window == 3 and config.checkpoint.init_from == "runs/before"


def test_stage_two_has_the_numbers_of_the_original():
    config = recipe("stage2_sds")
    assert config.optimizer.clip_norm == 1.0 and config.optimizer.learning_rate == 5e-5
    assert config.phases.sds.coefficient == 50 and config.total.updates == 8340


def test_epochs_that_are_too_short_are_refused():
    with pytest.raises(ConfigError, match=r"a stage of 1,650 updates: .*contact \[2000, end\)"):
        load_config(f"{RECIPES / 'stage3_contact_temporal.py'}", ["total.updates=1650"])


def test_the_pipeline_is_of_stages_that_start_from_the_one_before():
    stages = load_stages(f"{RECIPES / 'pipeline.py'}:folder")
    assert [name for name, _ in stages] == ["rgb", "sds", "contact_temporal"]
    assert [config.checkpoint.init_from for _, config in stages] == [None, "previous", "previous"]
    configs = [config for _, config in stages]
    assert all(config.model == configs[0].model for config in configs)
    assert all(config.sequence == configs[0].sequence for config in configs)
    active = [list(config.phases.enabled()) for config in configs]
    assert active == [[], ["sds"], ["contact", "temporal"]]


@pytest.mark.parametrize("given", ["mini", "runs/no_prior"])
def test_a_prior_that_is_not_there_is_refused_before_the_first_stage(given, monkeypatch, tmp_path):
    monkeypatch.setitem(places.EMBEDDED, "mini", tmp_path / "mini.safetensors")
    with pytest.raises(ConfigError, match=rf"prior = '{given}': there is no prior at"):
        load_stages(f"{RECIPES / 'pipeline.py'}:folder", [f"sds.phases.sds.prior={given}"])

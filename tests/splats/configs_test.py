"""Every recipe resolves, and says the published numbers."""

from pathlib import Path

import pytest

from splats.config import scene_folder
from training.errors import ConfigError
from training.registry import load_config

RECIPES = sorted(
    p
    for p in (Path(__file__).parents[2] / "configs" / "splats").glob("*.py")
    if p.stem != "__init__"
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_is_a_valid_config_with_a_command_in_its_docstring(path):
    config = load_config(str(path))
    assert config.system == "splats" and config.name == path.stem
    text = path.read_text()
    assert f"configs/splats/{path.name}" in text.partition('"""')[2].partition('"""')[0]
    names = {group.name for group in config.optimizer.groups}
    assert {"means", "scales", "quats", "opacities", "sh0", "shN"} == names
    assert config.optimizer.eps == 1e-15 and config.optimizer.clip_norm is None


def test_overrides_reach_nested_settings():
    config = load_config(
        str(RECIPES[0]), ["densify.grow_grad2d=8e-4", "densify.absgrad=True", "batch_size=4"]
    )
    assert (config.densify.grow_grad2d, config.densify.absgrad, config.batch_size) == (
        8e-4,
        True,
        4,
    )


def test_scenes_are_found_under_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "scenes" / "mine").mkdir(parents=True)
    monkeypatch.setenv("PODVISION_DATA", str(tmp_path))
    assert scene_folder("scenes/mine") == tmp_path / "scenes" / "mine"
    with pytest.raises(ConfigError, match=r"config\.scene\.path"):
        scene_folder("scenes/other")
    monkeypatch.delenv("PODVISION_DATA")
    with pytest.raises(ConfigError, match="PODVISION_DATA is not set"):
        scene_folder("scenes/mine")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("densify.refine_every=0", "1 or more"),
        ("model.initial_capacity=0", "from 1 to"),
        ("model.sh_every=0", "1 or more"),
        ("render.pair_capacity=0", "from 1 to"),
        ("render.tile_size=7", "0, 8 or 16"),
        ("scene.scale_factor=1e999", "finite"),
        ("scene.scale_factor=0", "above 0"),
        ("densify.prune_opa=1", "above 0 and below 1"),
        ("losses.depth=-1", "from 0 to"),
        ("scene.kind=colmapp", "colmap, nerfstudio or blender"),
    ],
)
def test_numbers_that_no_run_could_use_are_refused_by_key(override, words):
    key = override.partition("=")[0].replace(".", r"\.")
    with pytest.raises(ConfigError, match=rf"config\.{key} = .*{words}"):
        load_config(str(RECIPES[0]), [override])


def test_optional_parameters_bring_their_optimizer_groups():
    recipe = str(RECIPES[0])

    def rates(*overrides):
        groups = load_config(recipe, overrides).optimizer.groups
        return {group.name: group.learning_rate for group in groups}

    assert rates("model.bilateral_grid=true")["bilateral"] == 2e-3
    assert rates("model.pose_correction=true")["poses"] == 1e-5
    assert "shN" not in rates("model.sh_degree=0")
    assert {"bilateral", "poses"}.isdisjoint(rates())

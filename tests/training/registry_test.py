"""Config files, systems by name, and the sentence for each way in which a file can be wrong."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass

import pytest

from tests.training.toy import ToyTask
from training import registry
from training.config import Duration, TrainConfig
from training.errors import ConfigError
from training.registry import config_class, load_config, load_config_file, make_config, make_task

FILE = """
from ml_collections import ConfigDict

def get_config(arg=""):
    config = ConfigDict({"system": "toy", "width": 16, "total": {"epochs": 3}})
    if arg == "tiny":
        config.width = 4
    return config
"""


@dataclass(frozen=True)
class ToyConfig(TrainConfig):
    width: int = 8


@pytest.fixture
def toy_system(monkeypatch):
    """A system `toy` of two modules, as an installed one would have."""
    package = types.ModuleType("toy")
    package.__path__ = []
    package.__spec__ = types.SimpleNamespace(name="toy", submodule_search_locations=[])
    config, task = types.ModuleType("toy.config"), types.ModuleType("toy.task")
    config.Config = ToyConfig
    task.make_task = lambda config: (config, ToyTask())
    for name, module in {"toy": package, "toy.config": config, "toy.task": task}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(registry, "SYSTEMS", ("toy", "jepa3d"))


@pytest.fixture
def write(tmp_path):
    def write(text, name="recipe.py"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_a_file_its_argument_and_overrides_make_the_systems_own_config(toy_system, write):
    path = write(FILE)
    config = load_config(f"{path}:tiny", ["batch_size=64"])
    assert isinstance(config, ToyConfig)
    assert (config.width, config.batch_size, config.name) == (4, 64, "recipe")
    assert config.total == Duration(epochs=3.0)
    assert load_config(path).width == 16
    seen, task = make_task(config)
    assert seen is config and isinstance(task, ToyTask)


def test_a_key_of_another_system_is_unknown_here(toy_system, write):
    with pytest.raises(ConfigError, match=r"unknown key config\.widht; did you mean width\?"):
        make_config({"system": "toy", "widht": 3})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def get_config(arg:\n", "cannot be run"),
        ("import no_such_module_anywhere\n", "cannot be run: ModuleNotFoundError: No module named"),
        ("x = 1\n", r"defines neither get_config\(arg\) nor get_pipeline\(arg\)"),
        (
            "def get_config(arg):\n    raise ValueError('no such variant: ' + arg)\n",
            "no such variant",
        ),
        ("x = 1 / 0\n", r"cannot be run: ZeroDivisionError: division by zero \(line 1\)"),
        ("\nopen('nowhere.txt')\n", r"cannot be run: FileNotFoundError: .* \(line 2\)"),
        (
            "def get_config(arg):\n    raise RuntimeError('no\\nnet')\n",
            r"failed: RuntimeError: no net \(line 2\)$",
        ),
        ("def get_config():\n    return {}\n", r"takes 0 positional arguments"),
        ("def get_config(arg):\n    pass\n", "is None instead of a ConfigDict"),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config(arg):\n"
            "    config = ConfigDict({'system': 'toy'}).lock()\n"
            "    config.widht = 3\n"
            "    return config\n",
            "widht",
        ),
        ("def get_config(arg):\n    return {'width': 3}\n", "config.system is missing"),
        (
            "def get_config(arg):\n    return {'system': 'toyy'}\n",
            "'toyy' is unknown; did you mean toy",
        ),
        ("def get_config(arg):\n    return {'system': 3}\n", "config.system = 3 is unknown"),
    ],
)
def test_a_wrong_file_gives_one_sentence_with_its_name(toy_system, write, text, sentence):
    path = write(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_config(path)
    if "config.system" not in str(caught.value):
        assert "recipe.py" in str(caught.value)


def test_a_file_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match=r"no config file 'configs/nowhere\.py'"):
        load_config_file("configs/nowhere.py:tiny")


def test_a_file_that_is_not_python_is_named(write):
    with pytest.raises(ConfigError, match="is not a Python file"):
        load_config_file(write("{}", "recipe.json"))


def test_a_system_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(registry, "SYSTEMS", ("absent_system",))
    with pytest.raises(ConfigError, match="'absent_system' is not part of this installation"):
        config_class("absent_system")


def test_versions_name_what_decides_the_numbers():
    found = registry.versions()
    assert {"python", "jax", "jaxlib", "flax", "optax", "numpy"} <= set(found)
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("log.every=0", r"config\.log\.every = 0 must be 1 or more"),
        ("updates_per_call=0", r"config\.updates_per_call = 0 must be from 1 to 10,000"),
        ("loader.workers=-1", r"config\.loader\.workers = -1 must be from 1 to 1,024"),
        ("optimizer.b1=1.5", r"config\.optimizer\.b1 = 1\.5 must be at least 0 and below 1"),
        ("checkpoint.keep_every=0", r"config\.checkpoint\.keep_every = 0 must be 1 or more"),
    ],
)
def test_a_number_out_of_its_range_is_refused(toy_system, override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_config({"system": "toy"}, [override])

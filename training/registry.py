"""From a config file to a typed config and its task. The only place that finds systems by name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from training.config import TrainConfig
from training.errors import ConfigError, PodvisionError
from training.task import Task
from training.typed import build, suggestion

SYSTEMS = ("jepa3d", "hand_object", "splats", "rtdetr")


def load_config_file(spec: str) -> dict[str, Any]:
    """Runs `get_config(arg)` of a `path.py[:arg]` and returns its values as nested dicts.

    Raises:
      ConfigError: no such file, no `get_config` in it, or an error raised by it.
    """
    path_text, _, argument = spec.partition(":")
    path = Path(path_text)
    if not path.is_file():
        raise ConfigError(f"there is no config file {path_text!r}; see the folder configs/")
    module_spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path.resolve())
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"the config file {path_text} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except PodvisionError:
        raise
    except Exception as error:
        reason = _reason(error, path)
        raise ConfigError(f"the config file {path_text} cannot be run: {reason}") from error
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise ConfigError(f"the config file {path_text} does not define get_config(arg)")
    try:
        values = get_config(argument)
    except PodvisionError:
        raise
    except Exception as error:
        reason = _reason(error, path)
        raise ConfigError(f"get_config({argument!r}) of {path_text} failed: {reason}") from error
    values = values.to_dict() if hasattr(values, "to_dict") else values
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"get_config of {path_text} returned {values!r} instead of a ConfigDict; return one"
        )
    return dict(values)


def _reason(error: Exception, path: Path) -> str:
    """What a config file raised, on one line, and in which line of the file."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path.resolve()
    ]
    where = f" (line {lines[-1]})" if lines else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + where


def config_class(system: str) -> type[TrainConfig]:
    """The typed config of a system, `<system>.config.Config`.

    Raises:
      ConfigError: a name that is no system, or one that is not installed.
    """
    if system not in SYSTEMS:
        hint = suggestion(str(system), SYSTEMS)
        raise ConfigError(f"config.system = {system!r} is unknown{hint}")
    if importlib.util.find_spec(system) is None:
        raise ConfigError(f"the system {system!r} is not part of this installation")
    return importlib.import_module(f"{system}.config").Config


def installed() -> tuple[str, ...]:
    """The systems that are part of this installation."""
    return tuple(name for name in SYSTEMS if importlib.util.find_spec(name) is not None)


def system_module(system: str, role: str) -> ModuleType:
    """The module `<system>.<role>`: the same role has the same name in every system.

    Raises:
      ConfigError: the system has none, with those that have one.
    """
    if importlib.util.find_spec(f"{system}.{role}") is None:
        able = [name for name in installed() if importlib.util.find_spec(f"{name}.{role}")]
        raise ConfigError(f"{system} has no {role}; it exists for {', '.join(able) or 'no system'}")
    return importlib.import_module(f"{system}.{role}")


def make_config(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> TrainConfig:
    """The typed config: the system's defaults, under the values, under `a.b=text` overrides.

    Raises:
      ConfigError: an unknown system or key, or a value that cannot be used; see `typed.build`.
    """
    if "system" not in values:
        raise ConfigError("config.system is missing; set it to one of " + ", ".join(SYSTEMS))
    return build(config_class(values["system"]), values, overrides=overrides)


def load_config(spec: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """`make_config` of a config file; the name defaults to the file's."""
    values = load_config_file(spec)
    return make_config({"name": Path(spec.partition(":")[0]).stem, **values}, overrides)


def make_task(config: TrainConfig) -> Task:
    """The task of a config, by `<system>.task.make_task(config)`."""
    return importlib.import_module(f"{config.system}.task").make_task(config)


def versions() -> dict[str, str]:
    """Versions of what decides the numbers, for `config.json`."""
    import importlib.metadata as metadata

    packages = ("podvision", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found

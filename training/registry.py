"""From a config file to a typed config and its task. The only place that finds systems by name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from training.config import TrainConfig
from training.errors import ConfigError, PodvisionError
from training.typed import build, suggestion

if TYPE_CHECKING:
    from training.task import Task  # imports jax, which a command line is parsed without

# The one place where the core names systems; a test of the structure sees to it.
SYSTEMS = ("jepa3d", "hand_object", "splats", "rtdetr")


def load_config_file(spec: str) -> dict[str, Any] | list[tuple[str, dict[str, Any]]]:
    """Runs `get_config(arg)` or `get_pipeline(arg)` of a `path.py[:arg]`.

    Returns:
      The values as nested dicts; of a pipeline, the name and the values of each stage in turn.

    Raises:
      ConfigError: no such file, neither function in it, or an error raised by it.
    """
    path_text, _, argument = spec.partition(":")
    module = _module(path_text)
    name = "get_pipeline" if hasattr(module, "get_pipeline") else "get_config"
    function = getattr(module, name, None)
    if function is None:
        raise ConfigError(
            f"the config file {path_text} defines neither get_config(arg) nor get_pipeline(arg)"
        )
    try:
        values = function(argument)
    except PodvisionError:
        raise
    except Exception as error:
        reason = _reason(error, Path(path_text))
        raise ConfigError(f"{name}({argument!r}) of {path_text} failed: {reason}") from error
    if name == "get_config":
        return _plain_values(values, f"get_config of {path_text}")
    try:
        stages = [
            (str(stage), _plain_values(config, f"stage {stage} of {path_text}"))
            for stage, config in values
        ]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"get_pipeline of {path_text} must return a list of (name, ConfigDict)"
        ) from error
    names = [stage for stage, _ in stages]
    wrong = [n for n in names if not n.isidentifier() or names.count(n) > 1]
    if wrong or not names:
        raise ConfigError(
            f"get_pipeline of {path_text} names its stages {names}: each needs a name of its own, "
            "of letters, digits and underscores, because it is also the name of its folder"
        )
    return stages


def _plain_values(values: Any, where: str) -> dict[str, Any]:
    values = values.to_dict() if hasattr(values, "to_dict") else values
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r} instead of a ConfigDict; return one")
    return dict(values)


def _module(path_text: str) -> ModuleType:
    """The Python module in a config file."""
    path = Path(path_text)
    if not path.is_file():
        raise ConfigError(f"there is no config file {path_text!r}; see the folder configs/")
    module_spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path.resolve())
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"the config file {path_text} is not a Python file")
    # It does not enter `sys.modules`: two recipes may have one file name.
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except PodvisionError:
        raise
    except Exception as error:
        reason = _reason(error, path)
        raise ConfigError(f"the config file {path_text} cannot be run: {reason}") from error
    return module


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

    A part of a system that is trained by itself is named with a dot, `<system>.<part>`; it has its
    own `config` and `task` in the folder of that name.

    Raises:
      ConfigError: a name that is no system, or one that is not installed.
    """
    head, _, part = str(system).partition(".")
    if head not in SYSTEMS:
        hint = suggestion(str(system), SYSTEMS)
        raise ConfigError(f"config.system = {system!r} is unknown{hint}")
    if importlib.util.find_spec(head) is None:
        raise ConfigError(f"the system {head!r} is not part of this installation")
    if part and not _trained_part(system):
        raise ConfigError(f"config.system = {system!r}: {head} has no part {part!r} to be trained")
    return importlib.import_module(f"{system}.config").Config


def _trained_part(system: str) -> bool:
    """Whether the part of an installed system has a config and a task."""
    if system.partition(".")[0] not in SYSTEMS:
        return False
    try:
        found = [importlib.util.find_spec(f"{system}.{role}") for role in ("config", "task")]
    except ModuleNotFoundError:
        return False
    return None not in found


def installed() -> tuple[str, ...]:
    """The systems that are part of this installation."""
    return tuple(name for name in SYSTEMS if importlib.util.find_spec(name) is not None)


def make_config(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> TrainConfig:
    """The typed config: the system's defaults, then the values, then `a.b=text` overrides.

    Raises:
      ConfigError: an unknown system or key, or a value that cannot be used; see `typed.build`.
    """
    if "system" not in values:
        raise ConfigError("config.system is missing; set it to one of " + ", ".join(SYSTEMS))
    return build(config_class(values["system"]), values, overrides=overrides)


def load_config(spec: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """`make_config` of a config file with one config; the name defaults to the file's.

    Raises:
      ConfigError: also for the file of a pipeline.
    """
    values = load_config_file(spec)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{spec} is a pipeline of the stages {', '.join(name for name, _ in values)}; this "
            "command takes a config of one stage (podvision train runs pipelines)"
        )
    return make_config({"name": Path(spec.partition(":")[0]).stem, **values}, overrides)


def load_stages(spec: str, overrides: Sequence[str] = ()) -> list[tuple[str, TrainConfig]]:
    """Name and typed config of each stage of a pipeline; one stage named "" for a plain config.

    Args:
      overrides: `a.b=text` for every stage, `STAGE.a.b=text` for one.
    """
    values = load_config_file(spec)
    if isinstance(values, dict):
        return [("", load_config(spec, overrides))]
    names = [name for name, _ in values]
    # A stage that is named like a key of the config would take that key's overrides.
    common = [text for text in overrides if text.split(".")[0] not in names]
    stages = []
    for name, stage in values:
        own = [text.removeprefix(f"{name}.") for text in overrides if text.startswith(f"{name}.")]
        stages.append((name, make_config({"name": name, **stage}, [*common, *own])))
    return stages


def make_task(config: TrainConfig) -> Task:
    """The task of a config, by `<system>.task.make_task(config)`."""
    return importlib.import_module(f"{config.system}.task").make_task(config)


def systems_with(role: str) -> list[str]:
    """The installed systems that have a module `<system>.<role>`."""
    return [name for name in installed() if importlib.util.find_spec(f"{name}.{role}")]


def system_module(system: str, role: str) -> ModuleType:
    """The module `<system>.<role>`: what a system has for a command or a role.

    Raises:
      ConfigError: it is no system, or it has no such module; names the systems that have one.
    """
    serving = systems_with(role)
    is_part = "." in system and _trained_part(system)
    if system not in serving and not (is_part and importlib.util.find_spec(f"{system}.{role}")):
        served = ", ".join(serving) or "no system"
        raise ConfigError(f"this command has nothing for {system!r}; it serves {served}")
    return importlib.import_module(f"{system}.{role}")


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

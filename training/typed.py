"""From untyped settings (a ConfigDict, command-line text) to frozen dataclasses, once and strictly.

Unknown keys get a did-you-mean; wrong types name the key, the value and the wanted type; lists
become tuples. `--config.a.b=value` overrides are parsed by the type of the field that they set.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from training.errors import ConfigError

T = TypeVar("T")


def suggestion(name: str, known: Sequence[str]) -> str:
    """`; did you mean x?` or the list of what exists."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"


def build(cls: type[T], values: Mapping[str, Any], path: str = "config") -> T:
    """A dataclass of type `cls` from nested mappings.

    Raises:
      ConfigError: an unknown or missing key, or a value of the wrong type, with its full path.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise ConfigError(f"unknown key {path}.{name}{suggestion(name, list(fields))}")
    arguments = {
        name: convert(hints[name], value, f"{path}.{name}") for name, value in values.items()
    }
    for name, field in fields.items():
        optional = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in arguments and not optional:
            raise ConfigError(f"{path}.{name} is missing; set it in the config file")
    return cls(**arguments)


def convert(kind: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `kind`; an int is accepted for a float."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return convert(kind, value, path)
    if dataclasses.is_dataclass(kind):
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = shallow(value)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a group of keys, not {value!r}")
        return build(typing.cast(type, kind), value, path)
    if origin is tuple:
        return _convert_tuple(arguments, value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Any or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"{path} = {value!r} must be of type {kind.__name__}")


def _convert_tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path} = {value!r} must be a sequence such as (1, 2)")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        kinds = [arguments[0]] * len(value)
    elif len(arguments) == len(value):
        kinds = list(arguments)
    else:
        raise ConfigError(f"{path} = {value!r} must have {len(arguments)} entries")
    return tuple(convert(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))


def shallow(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, not descended into."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def parse(kind: Any, text: str, path: str) -> Any:
    """The value that command-line text stands for, given the annotated type.

    Raises:
      ConfigError: text that cannot be read as the type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if text in ("None", "none"):
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return parse(kind, text, path)
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{path}={text} must be True or False")
        return text.lower() == "true"
    if origin is tuple and not text.lstrip().startswith(("(", "[")):
        text = _sequence_text(text, of_strings=not arguments or arguments[0] is str)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        wanted = f"{kind}; write it with quotes and commas" if origin is tuple else kind.__name__
        raise ConfigError(f"{path}={text} cannot be read as {wanted}") from error
    return convert(kind, value, path)


def _sequence_text(text: str, of_strings: bool) -> str:
    """Entries with commas between them as a Python tuple; no text is no entry."""
    if of_strings:
        return repr(tuple(entry.strip() for entry in text.split(",") if entry.strip()))
    return f"({text},)" if text.strip() else "()"


def plain(value: Any) -> Any:
    """Nested dicts and lists of a dataclass, as JSON would have them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(child) for name, child in shallow(value).items()}
    if isinstance(value, (tuple, list)):
        return [plain(child) for child in value]
    return value


def apply_overrides(config: T, assignments: Sequence[str]) -> T:
    """The config with all `a.b.c=text` applied together, so that keys that depend on each other
    may be set in any order; entries of tuples are addressed by number.
    """
    tree = plain(config)
    for assignment in assignments:
        path, found, text = assignment.partition("=")
        if not found:
            raise ConfigError(f"--config.{path} has no value; write --config.{path}=VALUE")
        keys = path.split(".")
        value = _parse_at(config, keys, text, "config")
        node = tree
        for key in keys[:-1]:
            node = node[int(key) if isinstance(node, list) else key]
        node[keys[-1]] = plain(value)
    return build(type(config), tree)


def _parse_at(node: Any, keys: list[str], text: str, path: str) -> Any:
    """The typed value of `text` for the field that `keys` lead to."""
    key, rest = keys[0], keys[1:]
    if isinstance(node, tuple):
        if not key.isdigit() or int(key) >= len(node) or not rest:
            raise ConfigError(f"{path} is a sequence of {len(node)}; set {path} or {path}.0.KEY")
        return _parse_at(node[int(key)], rest, text, f"{path}.{key}")
    if not dataclasses.is_dataclass(node) or isinstance(node, type):
        raise ConfigError(f"{path} = {node!r} has no key {key!r} in it")
    hints = typing.get_type_hints(type(node))
    if key not in hints:
        raise ConfigError(f"unknown key {path}.{key}{suggestion(key, list(hints))}")
    here, value = f"{path}.{key}", getattr(node, key)
    if rest:
        return _parse_at(value, rest, text, here)
    if dataclasses.is_dataclass(value):
        raise ConfigError(f"{here} is a group of keys; set one of {', '.join(shallow(value))}")
    return parse(hints[key], text, here)

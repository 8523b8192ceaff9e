"""From untyped settings (a recipe, a JSON file, command-line text) to frozen dataclasses, strictly.

Unknown keys get a did-you-mean; a value of the wrong type or outside its limits names the key, the
value and what is wanted; lists become tuples. `--config.a.b=value` is read by its field's type.

Vocabulary: a *group* is a dataclass of keys. Values of a group are *laid over* others: keys that
they do not name keep what they had. *Named groups* are a sequence of groups with a `name`, given
and addressed by it: `optimizer.groups.means.learning_rate`. A group that is `ALTERNATIVE` (its keys
exclude each other, as updates and epochs of a duration do) is replaced as a whole.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from training.errors import ConfigError
from training.settings import default_of, group_type, limits_of, named_group_type

T = TypeVar("T")


def suggestion(name: str, known: Sequence[str]) -> str:
    """`; did you mean x?` or the list of what exists."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"


def build(
    cls: type[T],
    values: Mapping[str, Any],
    path: str = "config",
    overrides: Sequence[str] = (),
) -> T:
    """A `cls`: its defaults, the values laid over them, `a.b.c=text` overrides over both.

    All of it is put together before anything is checked, so that keys that depend on each other may
    be set in any order.

    Raises:
      ConfigError: an unknown or missing key, a value of the wrong type or outside its limits, with
        its full path; or values that do not go together.
    """
    together: dict[str, Any] = {}
    for assignment in overrides:
        together = _joined(together, read_assignment(cls, assignment, path))
    values = lay_over(cls, values, together, path)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if not isinstance(name, str):
            raise ConfigError(f"{path} has the key {name!r}, which is no name; write it as text")
        if name not in fields:
            raise ConfigError(f"unknown key {path}.{name}{suggestion(name, list(fields))}")
    arguments = {}
    for name, field in fields.items():
        here = f"{path}.{name}"
        if name in values:
            kind = _hints(cls)[name]
            value = convert(kind, lay_over(kind, default_of(field), values[name], here), here)
            limits_of(field).check(value, here)
            arguments[name] = value
        elif default_of(field) is dataclasses.MISSING:
            raise ConfigError(f"{here} is missing; set it in the config file")
    try:
        return cls(**arguments)
    except ConfigError as error:
        # A relation between the keys of a group; the group does not know where it lies.
        raise ConfigError(f"{path}: {error}" if "." in path else str(error)) from error


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def lay_over(kind: Any, below: Any, above: Any, path: str) -> Any:
    """Untyped values for the type `kind`: those of `above`, and for keys that it lacks of `below`.

    Only groups are laid over each other; everything else, a whole dataclass too, replaces.
    """
    if named_group_type(kind) is not None:
        upper = _by_name(above, path)
        if upper is None or below is dataclasses.MISSING:
            return above
        lower, entry = _by_name(below, path) or {}, typing.get_args(kind)[0]
        for name, group in upper.items():
            lower[name] = lay_over(entry, lower.get(name), group, f"{path}.{name}")
        return lower
    group = group_type(kind)
    if group is None or not isinstance(above, Mapping):
        return above
    # None only takes a key back; it does not choose among alternatives.
    if getattr(group, "ALTERNATIVE", False) and any(v is not None for v in above.values()):
        return above
    if dataclasses.is_dataclass(below) and not isinstance(below, type):
        below = shallow(below)
    if not isinstance(below, Mapping):
        return above
    merged = dict(below)
    for name, value in above.items():
        if name in merged:
            # A key that does not exist passes here; `build` refuses it by name.
            kind = _hints(group).get(name, Any)
            value = lay_over(kind, merged[name], value, f"{path}.{name}")
        merged[name] = value
    return merged


def _by_name(value: Any, path: str) -> dict[str, Any] | None:
    """Named groups, given as a mapping or in sequence, by name; None if it is neither."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, (list, tuple)):
        return None
    found: dict[str, Any] = {}
    for number, entry in enumerate(value):
        entry = shallow(entry) if dataclasses.is_dataclass(entry) else entry
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise ConfigError(f"{path}[{number}] = {entry!r} must be a group of keys with a name")
        if entry["name"] in found:
            raise ConfigError(f"{path} names {entry['name']!r} twice; keep one of them")
        found[entry["name"]] = {key: child for key, child in entry.items() if key != "name"}
    return found


def convert(kind: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `kind`; an int is accepted for a float."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        # Configs have no other unions than those with None; this fails for another.
        (kind,) = (a for a in arguments if a is not type(None))
        return convert(kind, value, path)
    if dataclasses.is_dataclass(kind):
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = shallow(value)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} must be a group of keys, not {value!r}")
        return build(typing.cast(type, kind), value, path)
    if named_group_type(kind) is not None and isinstance(value, (Mapping, list, tuple)):
        return _convert_named(arguments[0], value, path)
    if origin is tuple:
        return _convert_tuple(arguments, value, path)
    # `1` in a recipe is meant as 1.0; True is not.
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{path} is larger than any float; take a smaller number") from error
    if kind is Any or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    raise ConfigError(f"{path} = {value!r} must be of type {kind.__name__}")


def _convert_named(entry_type: Any, value: Any, path: str) -> tuple[Any, ...]:
    entries = []
    for name, entry in (_by_name(value, path) or {}).items():
        here = f"{path}.{name}"
        if dataclasses.is_dataclass(entry) and not isinstance(entry, type):
            entry = shallow(entry)
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{here} must be a group of keys, not {entry!r}")
        if entry.get("name", name) != name:
            raise ConfigError(f"{here}.name = {entry['name']!r} must be {name!r}, as the group is")
        entries.append(build(entry_type, {**entry, "name": name}, here))
    return tuple(entries)


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


def plain(value: Any) -> Any:
    """Nested dicts and lists of a dataclass, as JSON would have them; named groups by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kinds, found = _hints(type(value)), {}
        for name, child in shallow(value).items():
            found[name] = plain(child)
            if named_group_type(kinds[name]) is not None:
                found[name] = _by_name(found[name], name)
        return found
    if isinstance(value, (tuple, list)):
        return [plain(child) for child in value]
    return value


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
    # The last two: deep nesting exhausts Python's parser.
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        wanted = f"{kind}; write it with quotes and commas" if origin is tuple else kind.__name__
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        raise ConfigError(f"{path}={shown} cannot be read as {wanted}") from error
    return convert(kind, value, path)


def _sequence_text(text: str, of_strings: bool) -> str:
    """Entries with commas between them as a Python tuple; no text is no entry."""
    if of_strings:
        return repr(tuple(entry.strip() for entry in text.split(",") if entry.strip()))
    return f"({text},)" if text.strip() else "()"


def read_assignment(cls: type, assignment: str, path: str = "config") -> dict[str, Any]:
    """The nested values that `a.b.c=text` stands for: `{"a": {"b": {"c": value}}}`.

    Raises:
      ConfigError: an unknown key, or text that cannot be read as the type of its field.
    """
    keys, found, text = assignment.partition("=")
    if not found:
        raise ConfigError(f"--{path}.{keys} has no value; write --{path}.{keys}=VALUE")
    return _nested(cls, keys.split("."), text, path)


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both assignments, the later one where they set the same key.

    Alternatives are not taken back here: who sets two of them in one command is told so.
    """
    joined = dict(first)
    for name, value in second.items():
        both = isinstance(joined.get(name), Mapping) and isinstance(value, Mapping)
        joined[name] = _joined(joined[name], value) if both else value
    return joined


def _nested(cls: type, keys: list[str], text: str, path: str) -> dict[str, Any]:
    key, rest = keys[0], keys[1:]
    here, hints = f"{path}.{key}", _hints(cls)
    if key not in hints:
        raise ConfigError(f"unknown key {here}{suggestion(key, list(hints))}")
    kind = hints[key]
    entry, group = named_group_type(kind), group_type(kind)
    if entry is not None:
        if len(rest) < 2:
            raise ConfigError(f"{here} has groups by name; set {here}.NAME.KEY=VALUE")
        return {key: {rest[0]: _nested(entry, rest[1:], text, f"{here}.{rest[0]}")}}
    optional = type(None) in typing.get_args(kind)
    if group is not None and rest:
        return {key: _nested(group, rest, text, here)}
    if group is not None and not (optional and text in ("None", "none")):
        names = ", ".join(field.name for field in dataclasses.fields(group))
        raise ConfigError(f"{here} is a group of keys; set one of {names}")
    if rest:
        raise ConfigError(f"{here} is a single value; it has no key {'.'.join(rest)!r}")
    return {key: parse(kind, text, here)}

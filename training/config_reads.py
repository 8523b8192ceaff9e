"""Which keys of a config a program has looked at: a setting that nothing reads has no effect.

`watched(config)` is the same config, equal to it and with the same hash, that notes each key when
the program reads it. `unread` lists the keys that nothing has read, `verdict` those among them that
somebody has set: the guard `unread-config`.

Copies made by `dataclasses.replace` go on noting for the same record. What only copies, compares,
prints or checks a whole config does not count as reading: the methods that a dataclass has by
itself, `__post_init__`, and the modules in `_BOOKKEEPING`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

from training.settings import default_of
from training.verdict import Verdict

T = TypeVar("T")
# Modules that go through all keys of a config without using them.
_BOOKKEEPING = frozenset({"dataclasses", "copy", "training.typed", __name__})


class _Record:
    """The paths that were read; `paused` per thread, since loaders read in threads of theirs."""

    def __init__(self):
        self.paths: set[str] = set()
        self._local = threading.local()

    def note(self, path: str) -> None:
        if not getattr(self._local, "pauses", 0):
            self.paths.add(path)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self._local.pauses = getattr(self._local, "pauses", 0) + 1
        try:
            yield
        finally:
            self._local.pauses -= 1


def watched(config: T) -> T:
    """An equal config that notes which of its keys are read. Pickling gives a plain one."""
    return _watched(config, "", _Record())


def is_watched(config: Any) -> bool:
    """Whether the config notes what is read of it."""
    return hasattr(type(config), "reads")


def unread(config: Any) -> list[str]:
    """Dotted paths of the leaves of a watched config that nothing has read, in its order."""
    record: _Record = type(config).reads
    return [path for path in leaves(config) if path not in record.paths]


def verdict(config: Any) -> Verdict:
    """Whether every key that was set is read by something.

    Call it once the program has compiled, evaluated and, where it has a refresh, refreshed: what
    they use is read then. A resumed run is not to be judged: it does not read what only a fresh
    start needs (`checkpoint.init_from`), and the start was judged.

    Args:
      config: from `watched`.
    """
    defaults = type(config).plain(config.system)  # a config with nothing set
    values, chosen = leaves(config), set(_chosen(config, defaults))
    idle = [path for path in unread(config) if path in chosen]
    if not idle:
        sentence = f"every config key that was set is read ({len(chosen)} keys)"
        return Verdict("unread-config", True, sentence)
    listed = ", ".join(f"config.{path} = {values[path]!r}" for path in idle)
    them = "it has" if len(idle) == 1 else "they have"
    return Verdict(
        "unread-config",
        False,
        f"nothing reads {listed}, so {them} no effect with these settings; leave out what does "
        "not apply, or set what makes it apply",
    )


def leaves(config: Any) -> dict[str, Any]:
    """Dotted path -> value of all that is not a group; entries of a sequence by name or number."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if _is_group(value):
            below = leaves(value)
        elif _are_groups(value):
            below = {
                f"{entry}.{path}": leaf
                for entry, group in _entries(value)
                for path, leaf in leaves(group).items()
                if path != "name"  # it is the address
            }
        else:
            found[field.name] = value
            continue
        found |= {f"{field.name}.{path}": leaf for path, leaf in below.items()}
    return found


def _chosen(config: Any, defaults: Any) -> Iterator[str]:
    """Paths of the leaves that differ from `defaults`; if that is None, from their class's."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        usual = default_of(field) if defaults is None else getattr(defaults, field.name)
        if _is_group(value):
            below = _chosen(value, usual if _is_group(usual) else None)
            yield from (f"{field.name}.{path}" for path in below)
        elif _are_groups(value):
            known = dict(_entries(usual)) if _are_groups(usual) else {}
            for entry, group in _entries(value):
                below = _chosen(group, known.get(entry))
                yield from (f"{field.name}.{entry}.{path}" for path in below)
        elif value != usual:
            yield field.name


def _is_group(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _are_groups(value: Any) -> bool:
    # An empty tuple is a leaf: somebody may have set it, and whether it is read counts.
    return isinstance(value, tuple) and bool(value) and all(map(_is_group, value))


def _entries(groups: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """The groups of a sequence with their names or, where they have none, their numbers."""
    return [(str(getattr(group, "name", number)), group) for number, group in enumerate(groups)]


def _watched(config: Any, path: str, record: _Record) -> Any:
    """A copy of `config` of a class of its own, whose keys are noted below `path`."""
    values = {}
    for field in dataclasses.fields(config):
        value, here = getattr(config, field.name), f"{path}{field.name}"
        if _is_group(value):
            value = _watched(value, f"{here}.", record)
        elif _are_groups(value):
            value = tuple(
                _watched(group, f"{here}.{entry}.", record) for entry, group in _entries(value)
            )
        values[field.name] = value
    return _made(_watching_class(type(config), path, record), values)


def _made(cls: type, values: dict[str, Any]) -> Any:
    """An instance with these values; unlike the constructor's, they are taken as they are."""
    instance = object.__new__(cls)
    for name, value in values.items():
        # The classes are frozen: an ordinary assignment raises.
        object.__setattr__(instance, name, value)
    return instance


def _watching_class(plain: type, path: str, record: _Record) -> type:
    """A subclass of a config class whose instances note in `record` what is read of them."""
    names = frozenset(field.name for field in dataclasses.fields(plain))

    def read(self: Any, name: str) -> Any:
        # Frame 1 is the code that reads; what only copies or prints a config uses no value.
        if name in names and sys._getframe(1).f_globals.get("__name__") not in _BOOKKEEPING:
            record.note(path + name)
        return object.__getattribute__(self, name)

    def equal(self: Any, other: Any) -> Any:
        # The method of a dataclass wants equal classes, and each watched group has one of its own.
        if getattr(type(other), "plain", type(other)) is not plain:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def reduced(self: Any, protocol: Any) -> Any:
        # The class exists in this process only.
        return _made, (plain, {name: getattr(self, name) for name in names})

    # `__hash__` is named although it is inherited: a class with an `__eq__` alone would lose it.
    own: dict[str, Any] = {
        "__eq__": equal,
        **{name: getattr(plain, name) for name in ("__hash__", "__repr__") if name in dir(plain)},
    }
    if hasattr(plain, "__post_init__"):
        own["__post_init__"] = plain.__post_init__  # type: ignore[attr-defined]
    methods = {name: _unnoted(method, record) for name, method in own.items()}
    members = {"__getattribute__": read, "__reduce_ex__": reduced, "plain": plain, "reads": record}
    members |= {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
    return type(plain.__name__, (plain,), {**methods, **members})


def _unnoted(method: Any, record: _Record) -> Any:
    def quiet(self: Any, *arguments: Any) -> Any:
        with record.paused():
            return method(self, *arguments)

    return quiet

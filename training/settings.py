"""A field of a config: its default, what it may be, and whether a resumed run may change it.

    learning_rate: float = setting(1e-4, above=0, most=1e3)  # base, reached after the warm-up

The limits are metadata of the dataclass field. `training.typed.build` checks them for every value
of a recipe or an override, before the dataclass is made, so that a relation between fields (which
`__post_init__` checks) may rely on them. Limits of a tuple hold for each of its entries.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from typing import Any

from training.errors import ConfigError

_LIMITS, _RESUMABLE = "limits", "resumable"
# What an int32 on a device holds: a larger number would wrap around long after the start.
LARGEST_INTEGER = 2**31 - 1


@dataclass(frozen=True)
class Limits:
    """What a number or a text may be; None sets no limit.

    Attributes:
      least, most: inclusive bounds.
      above, below: exclusive bounds.
      choices: the only values.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None

    def check(self, value: Any, path: str) -> None:
        """Raises ConfigError, with the key and what is allowed, for a value outside the limits.

        Numbers must be finite, and integers without limits of their own fit 32 bits. None stands
        for "not set" and is the type's affair.
        """
        if isinstance(value, (tuple, list)):
            for number, entry in enumerate(value):
                self.check(entry, f"{path}[{number}]")
            return
        if self.choices is not None:
            if value not in self.choices:
                raise ConfigError(f"{path} = {value!r} must be {_one_of(self.choices)}")
            return
        # A bool is an int to Python.
        if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return
        # Comparisons with NaN are false: it would pass every limit.
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{path} = {value} must be finite{self._and_wanted()}")
        if isinstance(value, int) and self.most is None and abs(value) > LARGEST_INTEGER:
            raise ConfigError(f"{path} = {readable(value)} must fit 32 bits{self._and_wanted()}")
        outside = (
            (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        )
        if outside:
            raise ConfigError(f"{path} = {readable(value)} must be {self.wanted()}")

    def wanted(self) -> str:
        """The limits in words: `1 or more`, `above 0 and at most 1`; empty without limits."""
        if self.above is None and self.below is None:
            if self.least is not None and self.most is not None:
                return f"from {readable(self.least)} to {readable(self.most)}"
            if self.least is not None:
                return f"{readable(self.least)} or more"
            return "" if self.most is None else f"at most {readable(self.most)}"
        parts = [
            f"{words} {readable(bound)}"
            for words, bound in (
                ("at least", self.least),
                ("above", self.above),
                ("below", self.below),
                ("at most", self.most),
            )
            if bound is not None
        ]
        return " and ".join(parts)

    def _and_wanted(self) -> str:
        wanted = self.wanted()
        return f", {wanted}" if wanted else ""


_NO_LIMITS = Limits()


def setting(
    default: Any = MISSING,
    *,
    factory: Callable[[], Any] | None = None,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
    resumable: bool = False,
) -> Any:
    """A dataclass field with limits; without a default, the key must be given.

    Args:
      default, factory: the value, or what makes it, as in `dataclasses.field`.
      least, most, above, below, choices: see `Limits`.
      resumable: a resumed run may have another value without `--allow-config-change`, because it
        does not change what is learned. Of a group of keys it holds for all of them.
    """
    limits = Limits(least, most, above, below, None if choices is None else tuple(choices))
    metadata = {_LIMITS: limits, _RESUMABLE: resumable}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def limits_of(field: dataclasses.Field) -> Limits:
    """The limits of a dataclass field; those of every number where it has none of its own."""
    return field.metadata.get(_LIMITS, _NO_LIMITS)


def default_of(field: dataclasses.Field) -> Any:
    """The default of a dataclass field, or `dataclasses.MISSING`."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def group_type(kind: Any) -> type | None:
    """The dataclass of an annotated type (a group of keys, which may be optional), or None."""
    # A union such as `X | None` is looked into; a tuple of groups is no group.
    options = typing.get_args(kind) if typing.get_origin(kind) not in (None, tuple) else (kind,)
    groups = (option for option in options if isinstance(option, type))
    return next((group for group in groups if dataclasses.is_dataclass(group)), None)


def named_group_type(kind: Any) -> type | None:
    """The dataclass of a sequence of groups that are addressed by their `name`, or None."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is not tuple or arguments[1:] != (Ellipsis,):
        return None
    entry = group_type(arguments[0])
    if entry is None or "name" not in {field.name for field in dataclasses.fields(entry)}:
        return None
    return entry


def resumable(cls: type, key: str) -> bool:
    """Whether a resumed run may change a key, `a.b.c` below a config class; not an unknown one."""
    name, _, rest = key.partition(".")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if name not in fields:
        return False
    if fields[name].metadata.get(_RESUMABLE, False):
        return True
    kind = typing.get_type_hints(cls)[name]
    entry = named_group_type(kind)
    if entry is not None:
        rest = rest.partition(".")[2]  # without the name of the entry
    group = entry or group_type(kind)
    return bool(rest) and group is not None and resumable(group, rest)


def _one_of(choices: tuple[Any, ...]) -> str:
    *others, last = [str(choice) if choice != "" else "empty" for choice in choices]
    return f"{', '.join(others)} or {last}" if others else last


def readable(value: float) -> str:
    """A number for a sentence; of a very long one its length."""
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**30 else f"a number of {value.bit_length()} bits"
    return f"{value:g}"

"""Which images of one folder are the B-scans of one volume, told by their names.

A volume's images are named alike but for one running number: `hc01_R_001.png`, `hc01_R_002.png`.
Names that differ in anything else (another person, the other eye, another visit) are another
volume's. Where nothing but the names could tell and they do not, nothing is guessed.

Vocabulary: the *skeleton* of a name is its text with every number left open; the *running number*
is the last number that differs among names of one skeleton, unless its word says a person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_PERSON_WORDS = ("patient", "subject", "person", "participant", "case", "pid", "pat", "sub", "id")


@dataclass(frozen=True)
class ImageGroups:
    """The images of a folder.

    Attributes:
      groups: names of each volume's images, in order of their running number.
      left_out: names without a number beside names with one (`average.tif` beside `1.tif`).
      together: False when no two images belong together although there are several.
    """

    groups: list[list[str]]
    left_out: list[str]

    @property
    def together(self) -> bool:
        return len(self.groups) <= 1 or any(len(group) > 1 for group in self.groups)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which 2.bmp comes before 10.bmp."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]


def group_images(names: Sequence[str], owner: Callable[[str], str] = lambda _: "") -> ImageGroups:
    """Sorts the images of one folder into volumes.

    Args:
      names: file names without their folder.
      owner: the participant that a name gives away, "" for none; two never share a group.
    """
    ordered = sorted(names, key=natural_key)
    numbered = [name for name in ordered if re.search(r"\d", _stem(name))]
    left_out = [name for name in ordered if name not in set(numbered)] if numbered else []
    skeletons: dict[tuple, list[str]] = {}
    for name in numbered or ordered:
        skeletons.setdefault((_texts(name), owner(name)), []).append(name)
    groups = [group for members in skeletons.values() for group in _by_running_number(members)]
    groups.sort(key=lambda group: natural_key(group[0]))
    return ImageGroups(groups, left_out)


def describe(names: Sequence[str], shown: int = 4) -> str:
    """A few names in words: `a.png, b.png, ... (12 in all)`."""
    listed = ", ".join(names[:shown])
    return listed if len(names) <= shown else f"{listed}, ... ({len(names)} in all)"


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _texts(name: str) -> tuple[str, ...]:
    """The skeleton: the texts between the numbers, and the ending."""
    return (*re.split(r"\d+", _stem(name).lower()), name.rpartition(".")[2].lower())


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", _stem(name))]


def _by_running_number(names: list[str]) -> list[list[str]]:
    """Splits names of one skeleton by every number that differs, but for the running one."""
    table = [_numbers(name) for name in names]
    count = len(table[0])
    differing = [place for place in range(count) if len({row[place] for row in table}) > 1]
    texts = _texts(names[0])
    running = [place for place in differing if not _is_of_a_person(texts[place])]
    fixed = [place for place in differing if place not in running[-1:]]
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, row in zip(names, table):
        groups.setdefault(tuple(row[place] for place in fixed), []).append(name)
    return list(groups.values())


def _is_of_a_person(text: str) -> bool:
    words = re.findall(r"[a-z]+", text)
    return bool(words) and words[-1] in _PERSON_WORDS

"""Which classes of a data set are kept, and under which names: `prepare rtdetr --classes`.

A choice is a list of entries: `NAME` keeps a class, `NEW=OLD` gives it another name, and
`NEW=OLD+OLD+...` makes one class of several. Classes that no entry names are left out with their
objects, which are counted; their images stay and teach what is nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rtdetr.data.classes import require_unique
from rtdetr.data.readers.annotations import AnnotatedSplit
from training.errors import ConfigError, InputError
from training.typed import suggestion


def entries_of(argument: str) -> tuple[str, ...]:
    """The entries of `--classes`: of a file, one a line, or of the text, between commas.

    Raises:
      ConfigError: there is no entry.
    """
    path = Path(argument)
    text = path.read_text().splitlines() if path.is_file() else argument.split(",")
    entries = tuple(line.strip() for line in text if line.strip())
    if not entries:
        raise ConfigError(
            f"--classes {argument!r} names no class; write NAME,NEW=OLD,NEW=OLD+OLD or a file "
            "with one of these a line"
        )
    return entries


def with_chosen_classes(
    splits: Sequence[AnnotatedSplit], entries: Sequence[str]
) -> list[AnnotatedSplit]:
    """The splits with the chosen classes alone; all of them where there are no entries.

    Raises:
      InputError: a class that no split knows, that is named twice, or that two entries make.
    """
    if not entries:
        return list(splits)
    for split in splits:
        require_unique(split)
    known = {name for split in splits for name in split.categories.values()}
    new_names = _new_names(entries, known)
    return [_chosen(split, new_names) for split in splits]


def _new_names(entries: Sequence[str], known: set[str]) -> dict[str, str]:
    """Name at the source -> name in the table."""
    new_names: dict[str, str] = {}
    made: set[str] = set()
    for entry in entries:
        new, olds = _parsed(entry, known)
        if new in made:
            raise InputError(f"--classes makes the class {new!r} twice; write {new}=OLD+OLD")
        made.add(new)
        for old in olds:
            if old not in known:
                raise InputError(
                    f"--classes names {old!r}, which no split has{suggestion(old, sorted(known))}"
                )
            if old in new_names:
                raise InputError(f"--classes names {old!r} twice; keep one of the two")
            new_names[old] = new
    return new_names


def _parsed(entry: str, known: set[str]) -> tuple[str, list[str]]:
    """New name and old names of an entry; a class may itself be called "a=b" or "a+b"."""
    if entry in known or "=" not in entry:
        return entry, [entry]
    new, olds = (part.strip() for part in entry.split("=", 1))
    if not new or not olds:
        raise InputError(f"--classes has the entry {entry!r}; write NAME, NEW=OLD or NEW=OLD+OLD")
    return new, [olds] if olds in known else [old.strip() for old in olds.split("+")]


def _chosen(split: AnnotatedSplit, new_names: dict[str, str]) -> AnnotatedSplit:
    """One split; the first id of a new class stands for all that it is made of."""
    categories: dict[int, str] = {}
    number_of: dict[str, int] = {}  # new name -> id
    numbers: dict[int, int] = {}  # id at the source -> id that is kept
    for number, name in split.categories.items():
        if name in new_names:
            new = new_names[name]
            numbers[number] = number_of.setdefault(new, number)
            categories[number_of[new]] = new
    left_out: Counter[str] = Counter()
    images = []
    for image in split.images:
        objects = []
        for item in image.objects:
            if item.category in numbers:
                objects.append(replace(item, category=numbers[item.category]))
            elif item.category in split.categories:
                left_out[split.categories[item.category]] += 1
            else:
                objects.append(item)  # unknown to the source itself: the doctor tells
        images.append(replace(image, objects=tuple(objects)))
    findings = list(split.findings)
    for name, count in left_out.most_common():
        findings += [("object_of_other_class", f"{count:,} of {name!r}")] * count
    return replace(split, images=images, categories=categories, findings=findings)

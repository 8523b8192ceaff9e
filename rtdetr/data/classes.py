"""One class table for all splits, by name: labels are places in it, and nothing else.

Numbers of categories differ between tools (COCO's 1 … 90 with gaps, Roboflow's extra 0), so that a
model trained with one numbering and evaluated with another finds nothing. Names do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtdetr.data.dataset import ClassTable
from rtdetr.data.readers.annotations import AnnotatedSplit
from training.errors import InputError


def class_table(splits: Sequence[AnnotatedSplit]) -> tuple[ClassTable, list[tuple[str, str]]]:
    """The table, sorted by the ids of the first split, and findings about it.

    Categories that are never annotated in any split stay, unless their name is that of the
    supercategory under which others stand (a Roboflow export has such a category 0): those group
    others and are left out.

    Raises:
      InputError: two categories of one name, or a split that knows other names than the first.
    """
    findings: list[tuple[str, str]] = []
    for split in splits:
        require_unique(split)
    first = splits[0]
    names = set(first.categories.values())
    for split in splits[1:]:
        other = set(split.categories.values())
        if other != names:
            missing, extra = sorted(names - other), sorted(other - names)
            raise InputError(
                f"the splits {first.name} and {split.name} name different classes: "
                f"{split.name} lacks {', '.join(missing[:5]) or 'none'} and adds "
                f"{', '.join(extra[:5]) or 'none'}; export them with one list of classes"
            )
        if split.categories != first.categories:
            findings.append(
                (
                    "class_numbers_differ",
                    f"{split.name} numbers the classes otherwise than {first.name}; they are "
                    "matched by name",
                )
            )
    used = {
        split.categories.get(o.category)
        for split in splits
        for i in split.images
        for o in i.objects
    }
    ordered = sorted(first.categories)
    # A grouping category is the first one and has no object, as Roboflow writes it.
    if len(ordered) > 1 and ordered[0] == 0 and first.categories[0] not in used and len(used) > 0:
        others = [first.categories[number] for number in ordered[1:]]
        if all(name in used for name in others):
            findings.append(
                (
                    "grouping_category",
                    f"the category 0 ({first.categories[0]!r}) has no object in any split and is "
                    "left out: it only groups the others",
                )
            )
            ordered = ordered[1:]
    table = ClassTable(tuple(first.categories[n] for n in ordered), tuple(ordered))
    empty = [name for name in table.names if name not in used]
    if empty:
        listed = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
        findings.append(
            ("class_without_object", f"{len(empty)} classes have no object anywhere: {listed}")
        )
    return table, findings


def labels_of(table: ClassTable, categories: Mapping[int, str]) -> dict[int, int]:
    """Category id of one split -> label."""
    places = {name: label for label, name in enumerate(table.names)}
    return {number: places[name] for number, name in categories.items() if name in places}


def require_unique(split: AnnotatedSplit) -> None:
    """Raises InputError where two categories share a name, or there is none."""
    seen: dict[str, int] = {}
    for number, name in split.categories.items():
        if name in seen:
            raise InputError(
                f"the split {split.name} has two categories called {name!r} (ids {seen[name]} and "
                f"{number}); merge them, since classes are told apart by name"
            )
        seen[name] = number
    if not seen:
        raise InputError(f"the split {split.name} has no categories; name the classes")

"""What every reader gives: images with boxes as they were written down, nothing judged yet.

A *category* has an id and a name at its source. Boxes of one object are left, top, width, height,
in px of the image or, where the source says fractions, over its width and height.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SPLITS = ("train", "val", "test")
# Names of splits in folders and files, and what they are called here.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Annotated:
    """One object.

    Attributes:
      box: left, top, width, height; None where the source gives no four numbers.
      category: id at the source.
      crowd: stands for many objects that are not boxed one by one.
      area: px² of an outline, None where there is none.
      id: at the source, None where it has none.
    """

    box: tuple[float, float, float, float] | None
    category: int
    crowd: bool = False
    area: float | None = None
    id: int | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """One image.

    Attributes:
      name: of its file, relative to the data set.
      read: gives the file's bytes; raises OSError where there is no such file.
      id: at the source, None where it has none.
      size: (height, width) that the annotations say, None where they do not.
      fractions: boxes are fractions of the sides.
    """

    name: str
    read: Callable[[], bytes]
    objects: tuple[Annotated, ...] = ()
    id: int | None = None
    size: tuple[int, int] | None = None
    fractions: bool = False


@dataclass
class AnnotatedSplit:
    """One split, in the order of its source.

    Attributes:
      name: train, val or test.
      categories: id -> name.
      findings: (kind, sentence) of what was already found wrong while reading.
      held_out: cut off the training images here, not at the source.
    """

    name: str
    images: list[AnnotatedImage]
    categories: dict[int, str]
    findings: list[tuple[str, str]] = field(default_factory=list)
    held_out: bool = False

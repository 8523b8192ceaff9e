"""Pascal VOC's XML: one file an image; splits in `ImageSets/Main/*.txt`, or a folder each.

Corners are counted from 1 and include their last pixel in the original; most later data sets count
from 0 and do not. They are read as edges, as everybody does: the difference is one pixel.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

from rtdetr.data.readers.annotations import (
    SPLIT_NAMES,
    Annotated,
    AnnotatedImage,
    AnnotatedSplit,
)
from rtdetr.data.readers.yolo import SUFFIXES
from training.errors import InputError


def find(folder: Path) -> dict[str, list[Path]]:
    """The XML files of each split."""
    annotations = folder / "Annotations"
    if annotations.is_dir():
        lists = {path.stem: path for path in sorted(folder.glob("ImageSets/Main/*.txt"))}
        found: dict[str, list[Path]] = {}
        for name, split in SPLIT_NAMES.items():
            if name in lists:
                lines = lists[name].read_text(encoding="utf-8").split("\n")
                stems = [line.split()[0] for line in lines if line.strip()]
                found.setdefault(split, [annotations / f"{stem}.xml" for stem in stems])
        return found or {"train": sorted(annotations.glob("*.xml"))}
    found = {}
    for name, split in SPLIT_NAMES.items():
        files = sorted((folder / name).glob("**/*.xml"))
        if files:
            found.setdefault(split, files)
    files = sorted(folder.glob("*.xml"))
    return found or ({"train": files} if files else {})


def read(folder: Path) -> list[AnnotatedSplit]:
    """All splits of a data set in VOC's form; classes are sorted by name."""
    parsed = {
        split: [_parsed(path) for path in paths if path.is_file() or _absent(path)]
        for split, paths in find(folder).items()
    }
    names = sorted({name for rows in parsed.values() for _, tree in rows for name in _names(tree)})
    numbers = {name: number for number, name in enumerate(names)}
    return [
        AnnotatedSplit(
            split,
            [_image(path, tree, numbers, folder) for path, tree in rows],
            {number: name for name, number in numbers.items()},
        )
        for split, rows in parsed.items()
    ]


def _absent(path: Path) -> bool:
    raise InputError(f"{path} is listed in ImageSets/Main and is not there; restore it")


def _parsed(path: Path) -> tuple[Path, ElementTree.Element]:
    try:
        text = path.read_bytes()
        if b"<!ENTITY" in text:  # entities that expand into gigabytes
            raise InputError(f"{path} declares XML entities, which annotations never need")
        return path, ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"{path} is no XML file ({error}); export it again") from error


def _names(tree: ElementTree.Element) -> list[str]:
    return [(item.findtext("name") or "").strip() for item in tree.iter("object")]


def _image(
    path: Path, tree: ElementTree.Element, numbers: dict[str, int], folder: Path
) -> AnnotatedImage:
    name = (tree.findtext("filename") or path.stem).strip()
    places = [folder / "JPEGImages", path.parent, folder / "images", folder]
    # The file name of the XML counts where the one inside of it does not exist.
    files = [place / name for place in places]
    files += [place / f"{path.stem}{suffix}" for place in places for suffix in SUFFIXES]
    file = next((file for file in files if file.is_file()), files[0])
    objects = [
        Annotated(_box(item), numbers[(item.findtext("name") or "").strip()])
        for item in tree.iter("object")
    ]
    return AnnotatedImage(
        file.name, partial(Path.read_bytes, file), tuple(objects), size=_size(tree)
    )


def _box(item: ElementTree.Element) -> tuple[float, float, float, float] | None:
    corners = item.find("bndbox")
    try:
        values = [float(corners.findtext(k) or "") for k in ("xmin", "ymin", "xmax", "ymax")]  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        return None
    left, top, right, bottom = values
    return left, top, right - left, bottom - top


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    try:
        size = tuple(int(float(tree.findtext(f"size/{key}") or 0)) for key in ("height", "width"))
    except ValueError:
        return None
    return (size[0], size[1]) if all(size) else None

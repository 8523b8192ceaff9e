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

_NAMELESS = -1  # id of the class of an object without a name; no class has it


def find(folder: Path) -> dict[str, list[Path]]:
    """The XML files of each split."""
    annotations = folder / "Annotations"
    if annotations.is_dir():
        return _listed(folder) or {"train": sorted(annotations.glob("*.xml"))}
    found: dict[str, list[Path]] = {}
    for name, split in SPLIT_NAMES.items():
        files = sorted((folder / name).glob("**/*.xml"))
        if files:
            found.setdefault(split, files)
    files = sorted(folder.glob("*.xml"))
    return found or ({"train": files} if files else {})


def _listed(folder: Path) -> dict[str, list[Path]]:
    """What `ImageSets/Main` says: a line begins with the name of an image."""
    lists = {path.stem: path for path in sorted(folder.glob("ImageSets/Main/*.txt"))}
    if "train" not in lists and "trainval" in lists:
        lists["train"] = lists["trainval"]
    found: dict[str, list[Path]] = {}
    for name, split in SPLIT_NAMES.items():
        if name in lists:
            lines = lists[name].read_text(encoding="utf-8", errors="replace").splitlines()
            stems = [line.split()[0] for line in lines if line.strip()]
            paths = [folder / "Annotations" / f"{stem}.xml" for stem in stems]
            found.setdefault(split, paths)
    return found


def read(folder: Path) -> list[AnnotatedSplit]:
    """All splits of a data set in VOC's form; classes are sorted by name."""
    found = find(folder)
    findings: dict[str, list[tuple[str, str]]] = {split: [] for split in found}
    parsed = {
        split: [(path, tree) for path in paths for tree in _parsed(path, findings[split])]
        for split, paths in found.items()
    }
    names = {name for rows in parsed.values() for _, tree in rows for name in _names(tree)}
    numbers = {name: number for number, name in enumerate(sorted(names - {""}))}
    listed = {path for paths in found.values() for path in paths}
    unlisted = sorted(set((folder / "Annotations").glob("*.xml")) - listed)
    findings[next(iter(found))] += [("unlisted_annotation", path.name) for path in unlisted]
    return [
        AnnotatedSplit(
            split,
            [_image(path, tree, numbers, folder, findings[split]) for path, tree in rows],
            {number: name for name, number in numbers.items()},
            findings[split],
        )
        for split, rows in parsed.items()
    ]


def _parsed(path: Path, findings: list[tuple[str, str]]) -> list[ElementTree.Element]:
    """The file's tree in a list, which is empty where there is none (a tree may be false)."""
    try:
        text = path.read_bytes()
        if b"<!ENTITY" in text:  # entities that expand into gigabytes
            raise ValueError("it declares entities, which annotations never need")
        return [ElementTree.fromstring(text)]
    except FileNotFoundError:
        findings.append(("bad_annotation_file", f"{path.name} is listed and does not exist"))
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        findings.append(("bad_annotation_file", f"{path.name} is no XML file ({error})"))
    return []


def _names(tree: ElementTree.Element) -> list[str]:
    return [_name(item) for item in tree.iter("object")]


def _name(item: ElementTree.Element) -> str:
    return (item.findtext("name") or "").strip()


def _image(
    path: Path,
    tree: ElementTree.Element,
    numbers: dict[str, int],
    folder: Path,
    findings: list[tuple[str, str]],
) -> AnnotatedImage:
    name = (tree.findtext("filename") or path.stem).strip()
    places = [folder / "JPEGImages", path.parent, folder / "images", folder]
    # The file name of the XML counts where the one inside of it does not exist.
    files = [place / name for place in places]
    files += [place / f"{path.stem}{suffix}" for place in places for suffix in SUFFIXES]
    file = next((file for file in files if file.is_file()), files[0])
    items = list(tree.iter("object"))
    objects = [Annotated(_box(item), numbers.get(_name(item), _NAMELESS)) for item in items]
    difficult = sum((item.findtext("difficult") or "").strip() == "1" for item in items)
    findings += [("difficult_object", path.name)] * difficult
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
    except (ValueError, OverflowError):
        return None
    return (size[0], size[1]) if all(size) else None

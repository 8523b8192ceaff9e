"""COCO's JSON: `annotations/instances_<split>.json` beside image folders, or Roboflow's form of it,
`<split>/_annotations.coco.json` beside the images, or one file by itself (CVAT, Label Studio).

Ids are numbers, but some tools write them as text; a category id may be any number, with gaps.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from rtdetr.data.readers.annotations import (
    SPLIT_NAMES,
    Annotated,
    AnnotatedImage,
    AnnotatedSplit,
)
from training.errors import InputError

_ROBOFLOW = "_annotations.coco.json"
_OTHER_TASKS = ("captions", "image_info", "panoptic", "person_keypoints", "stuff")
# Names of a whole data set in one file: CVAT's, Label Studio's, and the usual ones.
_SINGLE = ("instances_default.json", "result.json", "annotations.json", "coco.json", _ROBOFLOW)
_ID_LIMIT = 2**63  # ids are stored as int64


def find(folder: Path) -> dict[str, Path]:
    """The annotation file of each split; `folder` may be such a file itself.

    Raises:
      InputError: two files are of the same split.
    """
    if folder.is_file():
        return {"train": folder} if folder.suffix == ".json" else {}
    found: dict[str, Path] = {}
    for path in _of_instances(folder):
        match = re.search(r"(train|val|valid|validation|test)[a-z]*(?:20\d\d)?$", path.stem)
        if match:
            _claim(found, SPLIT_NAMES[match.group(1)], path)
    for name, split in SPLIT_NAMES.items():
        path = folder / name / _ROBOFLOW
        if path.is_file():
            _claim(found, split, path)
    if found:
        return found
    places = [place / name for place in (folder / "annotations", folder) for name in _SINGLE]
    alone = [path for path in places if path.is_file()]
    return {"train": alone[0]} if alone else {}


def _of_instances(folder: Path) -> list[Path]:
    """JSON files of boxes; other tasks of COCO's lie beside them."""
    paths = sorted(folder.glob("annotations/*.json"))
    named = [path for path in paths if path.stem.startswith("instances_")]
    return named or [path for path in paths if not path.stem.startswith(_OTHER_TASKS)]


def _claim(found: dict[str, Path], split: str, path: Path) -> None:
    if split in found:
        raise InputError(
            f"{found[split]} and {path} are both of the split {split}; move one of them away"
        )
    found[split] = path


def read(folder: Path) -> list[AnnotatedSplit]:
    """All splits of a data set in COCO's form."""
    root = folder.parent if folder.is_file() else folder
    return [read_file(path, split, root) for split, path in find(folder).items()]


def read_file(path: Path, split: str, folder: Path) -> AnnotatedSplit:
    """One annotation file. Entries that cannot be understood become findings.

    Raises:
      InputError: no JSON, or none of an instance annotation; says what is missing.
    """
    content = _load(path)
    categories = _categories(content["categories"], path)
    findings: list[tuple[str, str]] = []
    objects = _objects(content["annotations"], findings)
    images, seen = [], set[int]()
    where = _image_folder(path, folder)
    for row in content["images"]:
        number = _number(row, "id")
        if number is None:
            findings.append(("bad_entry", f"image without a whole number as id: {_short(row)}"))
            continue
        name = str(row.get("file_name", ""))
        if number in seen:
            findings.append(("duplicate_image_id", f"image id {number} ({name}) is there twice"))
            continue
        seen.add(number)
        read_bytes = partial(_read_bytes, where, name)
        own = tuple(objects.pop(number, ()))
        images.append(AnnotatedImage(name, read_bytes, own, number, _size(row, findings)))
    for number, lost in objects.items():
        findings += [("annotation_without_image", f"image id {number} is not listed")] * len(lost)
    return AnnotatedSplit(split, images, categories, findings)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=_without_outlines)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON file ({error}); export it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__} and no COCO annotations")
    for key in ("images", "categories"):
        if not isinstance(content.get(key), list):
            raise InputError(f"{path} has no list {key!r}; give COCO's instance annotations")
    if not isinstance(content.get("annotations"), list):
        raise InputError(
            f"{path} has no list 'annotations', so there is nothing to learn; give the file of "
            "instances (test sets of COCO have none)"
        )
    return content


def _without_outlines(row: dict[str, Any]) -> dict[str, Any]:
    """Nine tenths of COCO's file; with them, reading it would take three times the memory."""
    row.pop("segmentation", None)
    return row


def _categories(rows: list[Any], path: Path) -> dict[int, str]:
    categories: dict[int, str] = {}
    for row in rows:
        number = _number(row, "id")
        if number is None:
            raise InputError(
                f"{path} has a category whose 'id' is no whole number: {_short(row)}; correct it"
            )
        if number in categories:
            raise InputError(f"{path} gives two categories the id {number}; give each its own")
        categories[number] = str(row.get("name", number))
    return categories


def _objects(rows: list[Any], findings: list[tuple[str, str]]) -> dict[int, list[Annotated]]:
    """Image id -> its objects."""
    objects: dict[int, list[Annotated]] = {}
    seen: set[int] = set()
    for row in rows:
        image, category = _number(row, "image_id"), _number(row, "category_id")
        if image is None or category is None:
            key = "image_id" if image is None else "category_id"
            findings.append(("bad_entry", f"object without a whole number as {key}: {_short(row)}"))
            continue
        identity = _number(row, "id")
        if identity is not None and identity in seen:
            findings.append(("duplicate_object_id", f"object id {identity} of image id {image}"))
        elif identity is not None:
            seen.add(identity)
        area = row.get("area")
        known_area = float(area) if isinstance(area, (int, float)) else None
        crowd = bool(_number(row, "iscrowd"))
        objects.setdefault(image, []).append(
            Annotated(_four(row.get("bbox")), category, crowd, known_area, identity)
        )
    return objects


def _number(row: Any, key: str) -> int | None:
    """A whole number of a row, also one that is written as text; None where there is none."""
    value = row.get(key) if isinstance(row, dict) else None
    if isinstance(value, int):
        number = value
    else:
        try:
            number = int(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return None
        if isinstance(value, float) and number != value:
            return None
    return number if -_ID_LIMIT <= number < _ID_LIMIT else None


def _short(row: Any) -> str:
    return str(row)[:120]


def _size(row: dict[str, Any], findings: list[tuple[str, str]]) -> tuple[int, int] | None:
    """(height, width); None where the file does not say them."""
    height, width = _number(row, "height"), _number(row, "width")
    if height and width:
        return height, width
    if row.get("height") or row.get("width"):
        said = f"{row.get('width')!r} x {row.get('height')!r}"
        findings.append(("wrong_size", f"{row.get('file_name')} is said to be {said[:80]}"))
    return None


def _four(box: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(box, list):
        return None
    try:
        left, top, width, height = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError):
        return None
    return left, top, width, height


def _image_folder(path: Path, folder: Path) -> list[Path]:
    """Where the images of an annotation file may lie, likeliest first."""
    if path.name == _ROBOFLOW:
        return [path.parent]
    split = re.sub(r"^instances_", "", path.stem)
    names = [split, re.sub(r"20\d\d$", "", split)]
    # A file that is given by itself may lie in `annotations`, beside the folders of images.
    roots = [folder, folder.parent] if path.parent == folder else [folder]
    candidates = []
    for root in roots:
        candidates += [root / name for name in names]
        candidates += [root / "images" / name for name in names]
        candidates += [root / "images", root]
    return candidates


def _read_bytes(folders: list[Path], name: str) -> bytes:
    # Some tools write paths as Windows does.
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        for folder in folders:
            path = folder / spelling
            if path.is_file():
                return path.read_bytes()
    raise FileNotFoundError(f"no file {name} in {folders[0]}")

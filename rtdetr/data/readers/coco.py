"""COCO's JSON: `annotations/instances_<split>.json` beside image folders, or Roboflow's form of it,
`<split>/_annotations.coco.json` beside the images.

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


def find(folder: Path) -> dict[str, Path]:
    """The annotation file of each split."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("annotations/*.json")):
        match = re.search(r"(train|val|valid|validation|test)[a-z]*(?:20\d\d)?$", path.stem)
        if match and not path.stem.startswith(("captions", "person_keypoints", "image_info")):
            found.setdefault(SPLIT_NAMES[match.group(1)], path)
    for name, split in SPLIT_NAMES.items():
        path = folder / name / _ROBOFLOW
        if path.is_file():
            found.setdefault(split, path)
    if not found and (folder / _ROBOFLOW).is_file():
        found["train"] = folder / _ROBOFLOW
    return found


def read(folder: Path) -> list[AnnotatedSplit]:
    """All splits of a data set in COCO's form."""
    return [read_file(path, split, folder) for split, path in find(folder).items()]


def read_file(path: Path, split: str, folder: Path) -> AnnotatedSplit:
    """One annotation file.

    Raises:
      InputError: no JSON, or none of an instance annotation; says what is missing.
    """
    content = _load(path)
    for key in ("images", "categories"):
        if not isinstance(content.get(key), list):
            raise InputError(f"{path} has no list {key!r}; give COCO's instance annotations")
    if not isinstance(content.get("annotations"), list):
        raise InputError(
            f"{path} has no list 'annotations', so there is nothing to learn; give the file of "
            "instances (test sets of COCO have none)"
        )
    findings: list[tuple[str, str]] = []
    categories = {
        _number(row, "id", path): str(row.get("name", row["id"])) for row in content["categories"]
    }
    if len(categories) != len(content["categories"]):
        raise InputError(f"{path} gives two categories the same id; give each its own")
    objects: dict[int, list[Annotated]] = {}
    for row in content["annotations"]:
        image = _number(row, "image_id", path)
        objects.setdefault(image, []).append(_object(row, path))
    images, seen = [], set[int]()
    where = _image_folder(path, folder)
    for row in content["images"]:
        number = _number(row, "id", path)
        name = str(row.get("file_name", ""))
        if number in seen:
            findings.append(("duplicate_image_id", f"image id {number} ({name}) is there twice"))
            continue
        seen.add(number)
        size = (row.get("height"), row.get("width"))
        images.append(
            AnnotatedImage(
                name,
                partial(_read_bytes, where, name),
                tuple(objects.pop(number, ())),
                number,
                (int(size[0]), int(size[1])) if all(size) else None,  # type: ignore[arg-type]
            )
        )
    for number, lost in objects.items():
        findings.append(
            ("annotation_without_image", f"{len(lost)} objects of image id {number}, not listed")
        )
    return AnnotatedSplit(split, images, categories, findings)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no JSON file ({error}); export it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__} and no COCO annotations")
    return content


def _number(row: Any, key: str, path: Path) -> int:
    try:
        value = row[key]
        number = int(value)
        if isinstance(value, float) and number != value:
            raise ValueError(value)
        return number
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} has an entry whose {key!r} is no whole number: {str(row)[:120]}"
        ) from error


def _object(row: dict[str, Any], path: Path) -> Annotated:
    box = row.get("bbox")
    area = row.get("area")
    identity = row.get("id")
    return Annotated(
        _four(box),
        _number(row, "category_id", path),
        bool(row.get("iscrowd", 0)),
        float(area) if isinstance(area, (int, float)) else None,
        int(identity) if isinstance(identity, (int, float)) else None,
    )


def _four(box: Any) -> tuple[float, float, float, float] | None:
    try:
        left, top, width, height = (float(value) for value in box)
    except (TypeError, ValueError):
        return None
    return left, top, width, height


def _image_folder(path: Path, folder: Path) -> list[Path]:
    """Where the images of an annotation file may lie, likeliest first."""
    if path.name == _ROBOFLOW:
        return [path.parent]
    split = re.sub(r"^instances_", "", path.stem)
    names = [split, re.sub(r"20\d\d$", "", split)]
    candidates = [folder / name for name in names]
    candidates += [folder / "images" / name for name in names]
    return [*candidates, folder / "images", folder]


def _read_bytes(folders: list[Path], name: str) -> bytes:
    for folder in folders:
        path = folder / name
        if path.is_file():
            return path.read_bytes()
    raise FileNotFoundError(f"no file {name} in {folders[0]}")

"""YOLO's text files: one line an object, `class cx cy width height` over the sides of the image.

`data.yaml` names the classes and, by split, the folders of the images; the labels lie in a folder
`labels` beside each folder `images`, under the name of the image. A line with more numbers is a
polygon, whose box is taken, unless `kpt_shape` says that they are keypoints after a box. Darknet's
`obj.names` and `train.txt` are read too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import yaml

from rtdetr.data.readers.annotations import (
    SPLIT_NAMES,
    Annotated,
    AnnotatedImage,
    AnnotatedSplit,
)
from training.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def find(folder: Path) -> Path | None:
    """The file that describes the data set."""
    for name in ("data.yaml", "data.yml", "dataset.yaml", "obj.names", "classes.txt"):
        if (folder / name).is_file():
            return folder / name
    return next(iter(sorted(folder.glob("*.yaml"))), None)


def read(folder: Path) -> list[AnnotatedSplit]:
    """All splits of a data set in YOLO's form.

    Raises:
      InputError: no names of classes, or no folder of images.
    """
    description = find(folder)
    if description is None:
        raise InputError(f"{folder} has no data.yaml that names its classes; add it")
    content = _load(description)
    names = _names(content, description)
    splits = []
    for split, images in _image_lists(folder, content).items():
        findings: list[tuple[str, str]] = []
        rows = [_image(path, folder, findings, "kpt_shape" in content) for path in images]
        findings += _orphans(images)
        splits.append(AnnotatedSplit(split, rows, dict(names), findings))
    if not any(split.images for split in splits):
        raise InputError(
            f"{folder} has no images where {description.name} says; expected are folders such as "
            "train/images and train/labels"
        )
    return splits


def _load(path: Path) -> dict[str, Any]:
    if path.suffix not in (".yaml", ".yml"):
        return {"names": _lines(path)}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no YAML file ({error}); export it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no names and folders; export it again")
    return content


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path} is no text in UTF-8 ({error}); save it as such") from error
    return [line.strip() for line in lines if line.strip()]


def _names(content: dict[str, Any], path: Path) -> dict[int, str]:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise InputError(f"{path} has no 'names' of the classes; add the list")
    try:
        found = {int(number): str(name) for number, name in names.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: the numbers of the classes must be whole") from error
    count = content.get("nc")
    if isinstance(count, int) and count != len(found):
        raise InputError(f"{path} says nc: {count} and names {len(found)} classes; correct one")
    return found


def _image_lists(folder: Path, content: dict[str, Any]) -> dict[str, list[Path]]:
    """The images of each split: what the description says, else the usual folders."""
    root = folder
    if isinstance(content.get("path"), str) and (folder / content["path"]).is_dir():
        root = folder / content["path"]
    found: dict[str, list[Path]] = {}
    for name, split in SPLIT_NAMES.items():
        said = content.get(name)
        places = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        # Exports write paths relative to somewhere else ("../train/images").
        places = [str(place).removeprefix("../") for place in places]
        places += [f"{name}/images", f"images/{name}", f"{name}.txt", name]
        for place in places:
            images = _images_at(root / place, root)
            if images and split not in found:
                found[split] = images
    if not found:
        images = _images_at(root / "images", root) or _images_at(root / "obj_train_data", root)
        found = {"train": images} if images else {}
    return found


def _images_at(place: Path, root: Path) -> list[Path]:
    if place.is_file() and place.suffix == ".txt":
        return [root / line.removeprefix("data/") for line in _lines(place)]
    if not place.is_dir():
        return []
    return sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)


def _orphans(images: list[Path]) -> list[tuple[str, str]]:
    """Label files in the images' `labels` folders that belong to no image."""
    own = {_label_file(path) for path in images}
    folders = {path.parent for path in own if "labels" in path.parts}
    files = {path for folder in folders for path in folder.glob("*.txt")}
    lost = [path for path in sorted(files - own) if path.name != "classes.txt"]
    return [("annotation_without_image", path.name) for path in lost]


def _image(
    path: Path, folder: Path, findings: list[tuple[str, str]], keypoints: bool
) -> AnnotatedImage:
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
    objects = []
    label = _label_file(path)
    if label.is_file():
        text = label.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                found = _object(line, keypoints)
                if found is None:
                    findings.append(("bad_line", f"line {number} of {label.name}: {line[:60]!r}"))
                else:
                    objects.append(found)
    return AnnotatedImage(name, partial(Path.read_bytes, path), tuple(objects), fractions=True)


def _label_file(image: Path) -> Path:
    """`.../images/a/b.jpg` has `.../labels/a/b.txt`; else the text lies beside the image."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            beside = Path(*parts).with_suffix(".txt")
            if beside.is_file():
                return beside
            break
    return image.with_suffix(".txt")


def _object(line: str, keypoints: bool) -> Annotated | None:
    try:
        category, *numbers = line.split()
        values = [float(value) for value in numbers]
        number = int(float(category))
        if number != float(category):
            return None
    except (ValueError, OverflowError):
        return None
    # A fifth number is a confidence.
    if len(values) in (4, 5) or (keypoints and len(values) > 5):
        center_x, center_y, width, height = values[:4]
        return Annotated((center_x - width / 2, center_y - height / 2, width, height), number)
    if len(values) >= 6 and len(values) % 2 == 0:
        x, y = values[0::2], values[1::2]
        return Annotated((min(x), min(y), max(x) - min(x), max(y) - min(y)), number)
    return None

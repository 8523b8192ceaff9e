"""Small data sets as files, in every format, all with the same images and boxes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

NAMES = ("cat", "dog", "bird")
SIZE = (60, 80)  # height, width
# Image -> (label, left, top, width, height) of its objects.
OBJECTS = {
    "a": [(0, 10.0, 5.0, 20.0, 30.0), (2, 40.0, 20.0, 30.0, 25.0)],
    "b": [],
    "c": [(1, 0.0, 0.0, 80.0, 60.0)],
}
SPLITS = {"train": ("a", "b"), "val": ("c",)}


def picture(name: str, size=SIZE, mode: str = "RGB", form: str = "PNG", **options) -> bytes:
    """Noise that depends on the name."""
    draw = np.random.default_rng(list(name.encode()))
    values = draw.integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, form, **options)
    return file.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def coco_content(names, ids=(1, 5, 90)) -> dict:
    """COCO's JSON of some images; ids of categories with gaps."""
    images, annotations = [], []
    for number, name in enumerate(names):
        row = {"id": number + 7, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
        images.append(row)
        for label, *box in OBJECTS[name]:
            identity = len(annotations) + 1
            annotations.append(
                {
                    "id": identity,
                    "image_id": number + 7,
                    "category_id": ids[label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": n} for i, n in zip(ids, NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(folder: Path) -> Path:
    for split, names in SPLITS.items():
        content = json.dumps(coco_content(names))
        write(folder / "annotations" / f"instances_{split}2017.json", content)
        for name in names:
            write(folder / f"{split}2017" / f"{name}.png", picture(name))
    return folder


def roboflow(folder: Path) -> Path:
    """COCO's form with a category 0 that only groups the others."""
    for split, names in SPLITS.items():
        content = coco_content(names, ids=(1, 2, 3))
        content["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
        place = folder / {"val": "valid"}.get(split, split)
        write(place / "_annotations.coco.json", json.dumps(content))
        for name in names:
            write(place / f"{name}.png", picture(name))
    return folder


def yolo(folder: Path) -> Path:
    description = {"names": dict(enumerate(NAMES)), "nc": 3}
    for split, names in SPLITS.items():
        description[split] = f"../{split}/images"
        for name in names:
            write(folder / split / "images" / f"{name}.png", picture(name))
            lines = [
                f"{label} {(x + w / 2) / SIZE[1]:.6f} {(y + h / 2) / SIZE[0]:.6f} "
                f"{w / SIZE[1]:.6f} {h / SIZE[0]:.6f}"
                for label, x, y, w, h in OBJECTS[name]
            ]
            if lines:
                write(folder / split / "labels" / f"{name}.txt", "\n".join(lines) + "\n")
    write(folder / "data.yaml", yaml.safe_dump(description))
    return folder


def voc(folder: Path) -> Path:
    for split, names in SPLITS.items():
        write(folder / "ImageSets" / "Main" / f"{split}.txt", "\n".join(names) + "\n")
        for name in names:
            write(folder / "JPEGImages" / f"{name}.png", picture(name))
            objects = "".join(
                f"<object><name>{NAMES[label]}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
                f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                for label, x, y, w, h in OBJECTS[name]
            )
            size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height></size>"
            xml = f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>"
            write(folder / "Annotations" / f"{name}.xml", xml)
    return folder


TREES = {"coco": coco, "roboflow": roboflow, "yolo": yolo, "voc": voc}

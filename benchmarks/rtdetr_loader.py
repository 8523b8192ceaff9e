"""Reading detection examples: images per second of one core, ours against a chain of Pillow.

Files are photographs of COCO in memory ($PODVISION_DATA/detector/tiny_coco), so that disks play no
part. One thread reads; every form is measured in turn, several rounds, and the best round of each
counts, because the machine may be busy. The chain of Pillow does what training scripts on Pillow
do: decode, color jitter by ImageEnhance, crop, flip, resize; color in half of the images.

Run: python benchmarks/rtdetr_loader.py [--images 100] [--rounds 3] [--side 640]
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# This file lies beside the packages that it measures: look for them one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from PIL import Image, ImageEnhance

from rtdetr.boxes import xywh_px
from rtdetr.config import AugmentConfig, DataConfig, PhaseConfig
from rtdetr.data.dataset import ClassTable, Objects
from rtdetr.data.decode import decode
from rtdetr.data.source import DetectionSource


@dataclass(frozen=True)
class Photographs:
    """A split of COCO, whole in memory; a `rtdetr.data.dataset.Dataset`."""

    files: list[bytes]
    annotated: list[Objects]
    images: list[dict]
    classes: ClassTable
    fingerprint: str = "photographs"

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, index: int) -> bytes:
        return self.files[index]

    def objects(self, index: int) -> Objects:
        return self.annotated[index]

    def size(self, index: int) -> tuple[int, int]:
        return self.images[index]["height"], self.images[index]["width"]

    def image_id(self, index: int) -> int:
        return self.images[index]["id"]

    def name(self, index: int) -> str:
        return self.images[index]["file_name"]

    def digest(self, index: int) -> str:
        return hashlib.sha256(self.files[index]).hexdigest()


def photographs(folder: Path, split: str = "train2017") -> Photographs:
    """Reads a folder in COCO's layout."""
    content = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    ids = [category["id"] for category in content["categories"]]
    names = tuple(category["name"] for category in content["categories"])
    images = content["images"]
    annotated = [
        _objects([a for a in content["annotations"] if a["image_id"] == image["id"]], ids, image)
        for image in images
    ]
    files = [(folder / split / image["file_name"]).read_bytes() for image in images]
    return Photographs(files, annotated, images, ClassTable(names, tuple(ids)))


def _objects(annotations: list[dict], ids: list[int], image: dict) -> Objects:
    boxes = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    return Objects(
        xywh_px(boxes, np.array([image["height"], image["width"]])),
        np.array([ids.index(a["category_id"]) for a in annotations], np.int32),
        np.array([a["iscrowd"] for a in annotations], bool),
        np.array([a["area"] for a in annotations], np.float32),
        np.array([a["id"] for a in annotations], np.int64),
    )


def pillow_plain(encoded: bytes, side: int) -> np.ndarray:
    """The evaluation form by Pillow alone."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def pillow_augmented(encoded: bytes, side: int, generator: np.random.Generator) -> np.ndarray:
    """The augmented form by Pillow alone, without boxes."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if generator.random() < 0.5:
            image = change(image).enhance(generator.uniform(0.5, 1.5))
    if generator.random() < 0.5:
        hue, *rest = image.convert("HSV").split()
        shift = int(generator.integers(-12, 13))
        hue = hue.point([(value + shift) % 256 for value in range(256)])
        image = Image.merge("HSV", (hue, *rest)).convert("RGB")
    if generator.random() < 0.5:
        factor = generator.uniform(1, 4)
        wide = Image.new("RGB", (int(image.width * factor), int(image.height * factor)))
        wide.paste(image, (int(generator.integers(wide.width - image.width + 1)), 0))
        image = wide
    if generator.random() < 0.8:
        width, height = (int(length * generator.uniform(0.3, 1)) for length in image.size)
        image = image.crop((0, 0, width, height))
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def forms(data: Photographs, side: int) -> dict[str, Callable[[int], object]]:
    """What is measured; each reads the image of a position."""
    count = len(data)

    def source(**augment: float) -> DetectionSource:
        chances = AugmentConfig(**augment, mixed=PhaseConfig(0, 1))  # type: ignore[arg-type]
        config = DataConfig(size=(side, side), max_objects=300, augment=chances)
        return DetectionSource(data, config, 0, 16, 10_000, augmented=True)

    plain, mosaics, mixups = source(), source(mosaic=0.5), source(mosaic=0.5, mixup=0.5)
    return {
        "decode, Pillow": lambda p: np.asarray(
            Image.open(io.BytesIO(data.files[p % count])).convert("RGB")
        ),
        "decode, ours": lambda p: decode(data.files[p % count], "image"),
        "evaluation, Pillow": lambda p: pillow_plain(data.files[p % count], side),
        "evaluation, ours": lambda p: plain[p % count],
        "augmented, Pillow": lambda p: pillow_augmented(
            data.files[p % count], side, np.random.default_rng(p)
        ),
        "augmented, ours": lambda p: plain.load(p % count, p),
        "mosaic 0.5, ours": lambda p: mosaics.load(p % count, p),
        "mosaic 0.5 mixup 0.5, ours": lambda p: mixups.load(p % count, p),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second of one core.")
    parser.add_argument("--images", type=int, default=100, help="read in each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=640, help="of the canvas, px")
    arguments = parser.parse_args()
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("PODVISION_DATA", shared))
    data = photographs(root / "detector" / "tiny_coco")
    measured = forms(data, arguments.side)
    best = dict.fromkeys(measured, float("inf"))
    for _ in range(arguments.rounds):
        for name, read in measured.items():
            # CPU time: whatever else runs here, it is what a core of one's own takes.
            start = time.process_time()
            for position in range(arguments.images):
                read(position)
            best[name] = min(best[name], (time.process_time() - start) / arguments.images)
    print(f"{len(data)} photographs, canvas {arguments.side}, load {os.getloadavg()[0]:.1f}")
    print(f"{'form':<28} {'ms':>7} {'images/s/core':>14} {'to Pillow':>10}")
    for name, taken in best.items():
        peer = best.get(name.split(",")[0] + ", Pillow")
        ratio = f"{peer / taken:>9.2f}x" if peer and "ours" in name else ""
        print(f"{name:<28} {1e3 * taken:>7.2f} {1 / taken:>14.0f} {ratio}")


if __name__ == "__main__":
    main()

"""Writers of `predict`: COCO results, and the images or the video with their boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self, TextIO

import cv2
import numpy as np
from PIL import Image

from rtdetr.data.dataset import ClassTable
from rtdetr.drawing import captions, drawn
from rtdetr.pictures_in import Frame, Images, Video
from rtdetr.scoring.found import Found
from training.errors import InputError

SAVED_AS = (".jpg", ".jpeg", ".png")  # other images are saved as PNG beside their own ending
DETECTIONS, IMAGES = "detections.json", "images.json"


class Results:
    """Writes `detections.json` while images come, and `images.json` at the end."""

    def __init__(self, folder: Path, classes: ClassTable, least_score: float):
        folder.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self._folder, self._classes, self._least = folder, classes, least_score
        self._images: list[dict[str, Any]] = []
        self._file: TextIO

    @property
    def images(self) -> int:
        return len(self._images)

    def __enter__(self) -> Self:
        self._file = (self._folder / DETECTIONS).open("w", encoding="utf-8")
        self._file.write("[")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.write("\n]\n")
        self._file.close()
        categories = [
            {"id": number, "name": name}
            for number, name in zip(self._classes.source_ids, self._classes.names)
        ]
        content = {"images": self._images, "categories": categories}
        (self._folder / IMAGES).write_text(json.dumps(content, indent=1), encoding="utf-8")

    def add(self, frame: Frame, found: Found) -> None:
        """The detections of an image."""
        height, width = np.shape(frame.pixels)[:2]
        self._images.append(
            {"id": frame.id, "file_name": frame.name, "width": width, "height": height}
        )
        kept = found[found.scores >= self._least]
        for row in rows_of(frame, kept, self._classes):
            self._file.write(("," if self.count else "") + "\n" + json.dumps(row))
            self.count += 1


def rows_of(frame: Frame, found: Found, classes: ClassTable) -> list[dict[str, Any]]:
    """COCO results of an image; coordinates to a hundredth of a thousandth of a pixel."""
    boxes = np.round(found.boxes.widths().values, 5).tolist()
    return [
        {
            "image_id": frame.id,
            "category_id": classes.source_ids[label],
            "bbox": box,
            "score": score,
            "image": frame.name,
            "category": classes.names[label],
        }
        for label, box, score in zip(found.labels.tolist(), boxes, found.scores.tolist())
    ]


class Drawings:
    """Writes drawn images into a folder, or the drawn frames of a video as one MP4 file."""

    def __init__(self, folder: Path, classes: ClassTable, threshold: float, source: Images | Video):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._classes, self._threshold = folder, classes, threshold
        self._source, self._video = source, None

    def __enter__(self) -> Self:
        if isinstance(self._source, Video):
            source = self._source
            file = self._folder / f"{source.file.stem}.mp4"
            # mp4v is the one MP4 codec in every build of OpenCV.
            code = cv2.VideoWriter.fourcc(*"mp4v")
            size = source.width, source.height
            self._video = cv2.VideoWriter(str(file), code, source.frames_per_second, size)
            if not self._video.isOpened():
                raise InputError(f"{file} cannot be written as a video; give another --output")
        return self

    def __exit__(self, *_: object) -> None:
        if self._video is not None:
            self._video.release()

    def add(self, frame: Frame, found: Found) -> None:
        """An image with its boxes, best ones on top."""
        kept = found[found.scores >= self._threshold]
        texts = captions(kept.labels, self._classes.names, kept.scores)
        assert isinstance(frame.pixels, np.ndarray)  # the others were skipped
        picture = drawn(frame.pixels, kept.boxes, kept.labels, texts)
        if self._video is not None:
            self._video.write(np.ascontiguousarray(picture[..., ::-1]))
            return
        path = self._folder / frame.name
        if path.suffix.lower() not in SAVED_AS:
            path = path.with_name(f"{path.name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=92)

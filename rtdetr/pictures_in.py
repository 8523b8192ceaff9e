"""What `predict` is given: one image, a folder of images, or a video, as frames one at a time.

An image that cannot be read is a frame too, with the sentence in place of the pixels, so that
whoever counts frames sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from rtdetr.data.decode import decode
from training.errors import InputError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


@dataclass(frozen=True)
class Frame:
    """An image of the input.

    Attributes:
      name: path under the input folder, or the number of a video's frame.
      id: what COCO results call it.
      pixels: uint8 [height, width, 3] RGB, or why there are none.
    """

    name: str
    id: int
    pixels: np.ndarray | str


@dataclass
class Images:
    """Image files in the order of their names.

    Attributes:
      others: files of the folder that have no ending of an image.
    """

    files: list[Path]
    root: Path
    ids: list[int]
    others: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        for path, number in zip(self.files, self.ids):
            name = path.relative_to(self.root).as_posix()
            try:
                pixels: np.ndarray | str = decode(path.read_bytes(), name)
            except (InputError, OSError) as error:
                pixels = str(error)
            yield Frame(name, number, pixels)


@dataclass
class Video:
    """The frames of a video file; ids are their numbers from 0.

    Attributes:
      promised: frames by the file's own word, 0 where it does not say.
    """

    file: Path
    width: int = field(init=False)
    height: int = field(init=False)
    frames_per_second: float = field(init=False)
    promised: int = field(init=False)

    def __post_init__(self):
        capture = self._opened()
        self.width, self.height = (
            int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        self.frames_per_second = capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.promised = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.release()

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.file))
        if not capture.isOpened():
            raise InputError(
                f"the video {self.file} cannot be opened; it is damaged or of an unknown kind: "
                "convert it to MP4, or give a folder with its frames"
            )
        return capture

    def __iter__(self) -> Iterator[Frame]:
        capture = self._opened()
        try:
            number = 0
            while True:
                there, pixels = capture.read()
                if not there:
                    return
                yield Frame(f"{number:06d}", number, np.ascontiguousarray(pixels[..., ::-1]))
                number += 1
        finally:
            capture.release()


def open_input(source: Path, output: Path, annotations: Path | None = None) -> Images | Video:
    """What lies at a path.

    Args:
      output: folder that is not read, where it lies inside of the input.
      annotations: COCO file whose images give the ids, by file name.

    Raises:
      InputError: nothing to read, or an image that the annotations do not name.
    """
    if source.is_file() and source.suffix.lower() in VIDEOS:
        return Video(source)
    if source.is_file():
        return Images([source], source.parent, image_ids([source.name], annotations))
    inside = [path for path in sorted(source.rglob("*")) if path.is_file()]
    inside = [path for path in inside if not path.resolve().is_relative_to(output.resolve())]
    files = [path for path in inside if path.suffix.lower() in IMAGES]
    if not files:
        raise InputError(
            f"--input {source} holds no image ({', '.join(IMAGES)}); give an image, a folder of "
            f"images or a video ({', '.join(VIDEOS)})"
        )
    names = [path.relative_to(source).as_posix() for path in files]
    return Images(files, source, image_ids(names, annotations), len(inside) - len(files))


def image_ids(names: list[str], annotations: Path | None) -> list[int]:
    """Ids of images: of the annotations, else the numbers that all names are, else 1, 2, …."""
    if annotations is not None:
        known = _ids_by_name(annotations)
        for name in names:
            if name not in known and Path(name).name not in known:
                raise InputError(
                    f"{annotations} names no image {name}; give the annotations of this folder, or "
                    "leave --annotations out"
                )
        return [known[name] if name in known else known[Path(name).name] for name in names]
    stems = [Path(name).stem for name in names]
    # COCO's own files are named by their ids.
    if all(stem.isascii() and stem.isdigit() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(names) + 1))


def _ids_by_name(annotations: Path) -> dict[str, int]:
    try:
        images = json.loads(annotations.read_text(encoding="utf-8"))["images"]
        return {image["file_name"]: int(image["id"]) for image in images}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--annotations {annotations} is no COCO file with images ({error}); give one that has "
            "`images` with `id` and `file_name`"
        ) from error

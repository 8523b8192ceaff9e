"""What a data set of images with boxes offers, wherever it is stored.

A *label* is the place of a class in the class table, 0 … K - 1, the same in every split. A *crowd*
is a box around many objects that are not boxed one by one: nothing is learned from it, and
evaluation ignores detections inside of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rtdetr.boxes import Boxes


@dataclass(frozen=True)
class ClassTable:
    """The classes in the order of their labels.

    Attributes:
      names: of the classes, all different.
      source_ids: the id that each had where the data came from (COCO: 1 … 90 with gaps).
    """

    names: tuple[str, ...]
    source_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Objects:
    """The annotated objects of one image.

    Attributes:
      boxes: `xywh_px`, values `[N, 4]` fp32, inside of the image, with sides above 0.
      labels: `[N]` int32.
      crowd: `[N]` bool.
      areas: `[N]` fp32, px² of the outline where one is given, else of the box; COCO sorts objects
        into small, medium and large by it.
      ids: `[N]` int64, of the annotations at their source.
    """

    boxes: Boxes
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    ids: np.ndarray


class Dataset(Protocol):
    """One split of a data set. Safe to use from several threads, and to pickle."""

    @property
    def classes(self) -> ClassTable: ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever any example may have changed."""
        ...

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes:
        """The image file, as it was given."""
        ...

    def objects(self, index: int) -> Objects: ...

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) in px of the upright image (EXIF orientation applied)."""
        ...

    def image_id(self, index: int) -> int:
        """Id at the source; what COCO results refer to."""
        ...

    def name(self, index: int) -> str:
        """File name at the source."""
        ...

    def digest(self, index: int) -> str:
        """SHA-256 of the image file in hexadecimal, known without reading the file.

        Names and ids repeat between splits of different images; this tells a shared one.
        """
        ...

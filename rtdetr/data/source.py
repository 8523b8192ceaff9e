"""The examples of a split, as training and evaluation read them.

An example is a canvas (`image` uint8 [height, width, 3] RGB), the part of it that is no padding
(`content` int32 [2], height and width in px from the upper left corner), its objects (`boxes`
float32 [max_objects, 4] `cxcywh_norm` over the canvas; `labels` int32 [max_objects], -1 after the
last object) and how many objects were too many (`dropped` int32). Crowds are no objects here.
"""

from __future__ import annotations

import numpy as np

from rtdetr.boxes import xyxy_px
from rtdetr.config import DataConfig
from rtdetr.data.augment import Plan, augmented, unchanged
from rtdetr.data.dataset import Dataset
from rtdetr.data.decode import decode
from rtdetr.data.geometry import Size
from rtdetr.data.picture import Canvas, Picture
from rtdetr.data.scales import canvas_at, inside
from rtdetr.targets import NO_OBJECT
from training.errors import InputError
from training.source import Example

_DRAWS_OF_A_PARTNER = 10  # then most of the data set must be unreadable
_DRAW = 0  # keeps the draws of examples apart from those of sizes; see rtdetr.data.scales


class DetectionSource:
    """Random access to the examples of a split. Has no state: threads and copies read the same.

    `source[index]` is the example without random changes, on the canvas `config.size`.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: DataConfig,
        seed: int,
        batch_size: int,
        total_updates: int,
        augmented: bool,
    ):
        """Phases of the augmentation are fractions of `total_updates`."""
        self.dataset = dataset
        self.augmented = augmented
        self._config, self._seed = config, seed
        self._batch_size, self._total_updates = batch_size, total_updates

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Example:
        """See the class.

        Raises:
          InputError: the image cannot be read, or is not the one that was annotated.
        """
        # Negative indices count from the end, and IndexError ends a plain `for` loop.
        picture = self.picture(range(len(self))[index])
        config = self._config
        canvas = unchanged(picture, config.size, config.resize, config.augment.fill)
        return example_of(canvas, config.max_objects)

    def load(self, index: int, position: int) -> Example:
        """The example at a position of the stream, a pure function of data, seed and position.

        Raises:
          InputError: as `source[index]`.
        """
        if not self.augmented:
            return self[index]
        config = self._config
        generator = np.random.default_rng([self._seed, _DRAW, position])
        canvas = augmented(
            self.picture(index),
            self._partner,
            self._plan(position // self._batch_size),
            config.augment,
            config.resize,
            generator,
        )
        return example_of(canvas, config.max_objects)

    def identity(self, index: int) -> str:
        """Of the file's content: what training and evaluation must not share."""
        return self.dataset.digest(index)

    def shape_at(self, update: int) -> Size:
        """(height, width) of the canvas of all examples of an update."""
        if not self.augmented:
            return self._config.size
        return canvas_at(self._config, self._seed, update, self._total_updates)

    def picture(self, index: int) -> Picture:
        """The decoded image with its objects, without crowds.

        Raises:
          InputError: see `source[index]`.
        """
        dataset = self.dataset
        pixels = decode(dataset.encoded(index), dataset.name(index))
        objects, size = dataset.objects(index), dataset.size(index)
        if pixels.shape[:2] != tuple(size):
            raise InputError(
                f"the image {dataset.name(index)} is {pixels.shape[1]} × {pixels.shape[0]} px, but "
                f"its objects were annotated on {size[1]} × {size[0]}; prepare the data again"
            )
        single = ~objects.crowd
        corners = objects.boxes[single].corners().values.astype(np.float64)
        return Picture(pixels, xyxy_px(corners, np.array(size)), objects.labels[single])

    def _partner(self, generator: np.random.Generator) -> Picture:
        """Another picture. An unreadable one is not a fault of the example that it was drawn for.

        It is counted once an epoch, where it is an example itself; counted here too, one damaged
        file would seem to be several, and stop a run that may go on.
        """
        for _ in range(_DRAWS_OF_A_PARTNER - 1):
            try:
                return self._drawn(generator)
            except InputError:
                continue
        return self._drawn(generator)

    def _drawn(self, generator: np.random.Generator) -> Picture:
        return self.picture(int(generator.integers(len(self))))

    def _plan(self, update: int) -> Plan:
        augment, total = self._config.augment, self._total_updates
        return Plan(
            self.shape_at(update),
            inside(augment.strong, update, total),
            inside(augment.mixed, update, total),
        )


def example_of(canvas: Canvas, max_objects: int) -> Example:
    """A canvas in arrays of constant shape; see the module docstring.

    Of more than `max_objects` objects, the largest ones stay.
    """
    values, labels = canvas.boxes.values, canvas.labels
    areas = values[:, 2] * values[:, 3]
    # Stable, and sorted back: who stays, stays in order.
    kept = np.sort(np.argsort(-areas, kind="stable")[:max_objects])
    boxes = np.zeros((max_objects, 4), np.float32)
    padded = np.full(max_objects, NO_OBJECT, np.int32)
    boxes[: len(kept)], padded[: len(kept)] = values[kept], labels[kept]
    return {
        "image": canvas.pixels,
        "content": np.array(canvas.content, np.int32),
        "boxes": boxes,
        "labels": padded,
        "dropped": np.array(len(labels) - len(kept), np.int32),
    }

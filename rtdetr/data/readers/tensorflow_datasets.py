"""Data sets of tensorflow-datasets with boxes (`coco/2017`, `bccd`), downloaded before.

Read without TensorFlow, as a data source of ArrayRecord files. Boxes there are (top, left, bottom,
right) as fractions of the sides, labels are numbers from 0.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow_datasets as tfds

from rtdetr.data.readers.annotations import (
    SPLIT_NAMES,
    Annotated,
    AnnotatedImage,
    AnnotatedSplit,
)
from training.errors import InputError


def read(name: str, folder: str | None = None) -> list[AnnotatedSplit]:
    """All splits of a data set.

    Args:
      name: such as `coco/2017`.
      folder: where tensorflow-datasets keeps its data; None takes its own.

    Raises:
      InputError: unknown, not downloaded, or not a set of images with boxes.
    """
    try:
        known: Any = tfds.builder(name, data_dir=folder, file_format="array_record")
        # What is stored, not what this version of the library would make.
        builder: Any = tfds.builder_from_directory(str(known.data_dir))
        sources = {split: builder.as_data_source(split) for split in builder.info.splits}
    except (tfds.core.DatasetNotFoundError, AssertionError, OSError, ValueError) as error:
        raise InputError(_not_there(name, str(error) or repr(error))) from error
    if not sources:
        raise InputError(_not_there(name, "it was not built"))
    features = builder.info.features
    objects = features["objects"].feature if "objects" in features else {}
    if "bbox" not in objects or "label" not in objects:
        raise InputError(f"the data set {name!r} has no boxes ('objects/bbox'); choose another one")
    names = dict(enumerate(objects["label"].names))
    return [
        AnnotatedSplit(
            SPLIT_NAMES[split],
            [_image(source, index) for index in range(len(source))],
            dict(names),
        )
        for split, source in sources.items()
        if split in SPLIT_NAMES
    ]


def _not_there(name: str, reason: str) -> str:
    short = reason.strip().splitlines()[0][:200]
    return (
        f"tensorflow-datasets has no data set {name!r} as ArrayRecord files ({short}); make it "
        f"with `tfds build {name} --file_format=array_record`, or name its folder by --data-dir"
    )


def _image(source: Any, index: int) -> AnnotatedImage:
    decoded = source.dataset_info.features.deserialize_example_np(
        source.data_source[index], decoders={"image": tfds.decode.SkipDecoding()}
    )
    objects = decoded["objects"]
    crowd = objects.get("is_crowd", [False] * len(objects["label"]))
    areas = objects.get("area", [None] * len(objects["label"]))
    found = tuple(
        Annotated(
            (float(box[1]), float(box[0]), float(box[3] - box[1]), float(box[2] - box[0])),
            int(label),
            bool(many),
            None if area is None else float(area),
        )
        for box, label, many, area in zip(objects["bbox"], objects["label"], crowd, areas)
    )
    name = decoded.get("image/filename", b"")
    identity = decoded.get("image/id")
    return AnnotatedImage(
        name.decode() if isinstance(name, bytes) and name else f"{index}.jpg",
        partial(_encoded, source, index),
        found,
        None if identity is None else int(identity),
        fractions=True,
    )


def _encoded(source: Any, index: int) -> bytes:
    features = source.dataset_info.features
    skip = {"image": tfds.decode.SkipDecoding()}
    return features.deserialize_example_np(source.data_source[index], decoders=skip)["image"]

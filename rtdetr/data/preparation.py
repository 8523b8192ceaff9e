"""Preparing a data set: read, judge every image, write shards and tables, tell what was found."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from rtdetr.data import doctor
from rtdetr.data.class_choice import with_chosen_classes
from rtdetr.data.classes import class_table, labels_of
from rtdetr.data.dataset import ClassTable
from rtdetr.data.examine import Examined, examine
from rtdetr.data.prepared import INDEX, OBJECTS, VERSION, table_digest
from rtdetr.data.readers import coco, voc, yolo
from rtdetr.data.readers.annotations import AnnotatedImage, AnnotatedSplit
from rtdetr.data.shards import ShardWriter
from training import storage
from training.errors import DataFault, InputError

Say = Callable[[str], None]
FORMATS = ("auto", "coco", "yolo", "voc")


@dataclass(frozen=True)
class PrepareSettings:
    """How a data set is prepared.

    Attributes:
      format: one of `FORMATS`; "auto" recognizes it by its files.
      eval_fraction: of the training images, for validation where the source has none.
      max_bad_fraction: of images and objects that may be unusable.
      allow_overlap: images in two splits are told, not refused.
      drop_unannotated: images without an object are left out.
      images_per_shard, workers: of the writing.
      classes: entries of a choice of classes, see `class_choice`; empty keeps all.
    """

    format: str = "auto"
    eval_fraction: float = 0.1
    max_bad_fraction: float = 0.01
    allow_overlap: bool = False
    drop_unannotated: bool = False
    images_per_shard: int = 2000
    workers: int = 4
    classes: tuple[str, ...] = ()


def read_source(folder: Path, form: str) -> tuple[str, list[AnnotatedSplit]]:
    """The format and the splits of a folder, or of one COCO file.

    Raises:
      InputError: there is nothing of a known format.
    """
    if not folder.exists():
        raise InputError(f"the input {folder} does not exist; name the folder of the data set")
    readers = {"coco": coco, "voc": voc, "yolo": yolo}
    names = list(readers) if form == "auto" else [form]
    for name in names:
        if readers[name].find(folder):
            return name, readers[name].read(folder)
    raise InputError(
        f"{folder} holds no {' and no '.join(names)} data set: COCO has "
        "annotations/instances_*.json or */_annotations.coco.json, VOC has Annotations/*.xml, YOLO "
        "has data.yaml; give the folder that contains them, or one JSON file of COCO's form"
    )


def prepare(
    splits: Sequence[AnnotatedSplit],
    source: str,
    output: epath.Path | None,
    settings: PrepareSettings,
    say: Say,
) -> dict[str, Any]:
    """Examines all images, and writes the prepared folder unless `output` is None.

    Returns:
      The doctor's report.

    Raises:
      InputError: classes that do not agree, the same image in two splits, or nothing to train on.
      DataFault: more is unusable than allowed; nothing that opens is left.
    """
    splits = with_chosen_classes(splits, settings.classes)
    splits = _worth_writing(splits, source)
    splits = with_validation(splits, settings.eval_fraction)
    table, findings = class_table(splits)
    facts = {split.name: doctor.SplitFacts(listed=len(split.images)) for split in splits}
    for kind, sentence in findings:
        facts[splits[0].name].note(kind, sentence)
    written: dict[str, Any] = {}
    seen: dict[str, tuple[str, str]] = {}  # digest of pixels -> (split, name)
    for split in splits:
        say(f"{split.name}: {len(split.images):,} images")
        written[split.name] = _one_split(split, table, facts, seen, output, settings)
    report = doctor.as_json(facts, table)
    say(doctor.as_text(report))
    _judge(facts, settings)
    if output is not None:
        _finish(output, source, table, written, report, settings)
    return report


def _worth_writing(splits: Sequence[AnnotatedSplit], source: str) -> list[AnnotatedSplit]:
    """The splits that hold something; what was found in the others goes to the first of these."""
    lost: list[tuple[str, str]] = []
    kept: list[AnnotatedSplit] = []
    for split in splits:
        if not split.images:
            lost += [("split_without_images", split.name), *split.findings]
        # COCO's test images come without their objects: nothing can be measured on them.
        elif split.name != "train" and not any(image.objects for image in split.images):
            lost += [("split_without_objects", split.name), *split.findings]
        else:
            kept.append(split)
    if not kept or ("split_without_images", "train") in lost:
        reasons = "; ".join(f"{kind.replace('_', ' ')}: {said}" for kind, said in lost[:3])
        raise InputError(f"{source} lists no usable images ({reasons}); check the export")
    return [replace(kept[0], findings=[*kept[0].findings, *lost]), *kept[1:]]


def with_validation(splits: list[AnnotatedSplit], fraction: float) -> list[AnnotatedSplit]:
    """Splits with a validation part: of the source, or cut off the training images by their names.

    Which images are held out depends on their names alone, not on their order or number.
    """
    names = {split.name for split in splits}
    if "val" in names or "train" not in names or fraction == 0:
        return splits
    (train,) = [split for split in splits if split.name == "train"]
    chosen = sorted(train.images, key=lambda image: _draw(image.name))
    # One image stays for training even of two.
    count = min(max(1, round(fraction * len(chosen))), len(chosen) - 1)
    held_out = {image.name for image in chosen[:count]}
    kept = [image for image in train.images if image.name not in held_out]
    cut = [image for image in train.images if image.name in held_out]
    parts = [AnnotatedSplit("train", kept, train.categories, train.findings)]
    if cut:
        parts.append(AnnotatedSplit("val", cut, train.categories, held_out=True))
    return parts + [split for split in splits if split.name != "train"]


def _draw(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _one_split(
    split: AnnotatedSplit,
    table: ClassTable,
    facts: dict[str, doctor.SplitFacts],
    seen: dict[str, tuple[str, str]],
    output: epath.Path | None,
    settings: PrepareSettings,
) -> dict[str, Any]:
    """Examines and writes a split; returns its entry of the index."""
    found = facts[split.name]
    for kind, sentence in split.findings:
        found.note(kind, sentence)
    labels = labels_of(table, split.categories)
    rows = _Rows()
    writer = None
    if output is not None:
        writer = ShardWriter(output / split.name, settings.images_per_shard)
    for image, examined in _examined(split, labels, settings.workers):
        for kind, sentence in examined.findings:
            if kind != "image_without_object" or not settings.drop_unannotated:
                found.note(kind, sentence)
        if examined.encoded is None or examined.objects is None:
            continue
        if settings.drop_unannotated and not len(examined.objects.labels):
            found.note("unannotated_image", image.name)
            continue
        if not _duplicate_stays(image, examined, split, found, seen):
            continue
        rows.add(image, examined, table, found)
        if writer is not None:
            writer.write(examined.encoded)
    arrays = rows.arrays()
    facts_of_split = {"images": len(rows.names), "fingerprint": table_digest(arrays, table)}
    if writer is not None and output is not None:
        facts_of_split["shards"] = writer.close()
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        storage.replace_bytes(output / split.name / OBJECTS, file.getvalue())
    return facts_of_split


def _examined(
    split: AnnotatedSplit, labels: dict[int, int], workers: int
) -> Iterator[tuple[AnnotatedImage, Examined]]:
    """In order; a few images are read ahead by threads (decoding does not hold Python's lock)."""
    with ThreadPoolExecutor(workers) as pool:
        images = iter(split.images)
        pending = []

        def start(count: int) -> None:
            for image in islice(images, count):
                pending.append((image, pool.submit(examine, image, labels, split.categories)))

        start(4 * workers)
        while pending:
            image, future = pending.pop(0)
            start(1)
            yield image, future.result()


def _duplicate_stays(
    image: AnnotatedImage,
    examined: Examined,
    split: AnnotatedSplit,
    found: doctor.SplitFacts,
    seen: dict[str, tuple[str, str]],
) -> bool:
    """Notes an image whose pixels were there before; false where it is left out."""
    first = examined.pixel_digest not in seen
    other, name = seen.setdefault(examined.pixel_digest, (split.name, image.name))
    if first:
        return True
    left_out = split.held_out and other != split.name
    kind = "duplicate_image" if other == split.name else "duplicate_across_splits"
    kind = "copy_of_training_image" if left_out else kind
    found.note(kind, f"{image.name} has the pixels of {name} in {other}")
    return not left_out


class _Rows:
    """The table of a split while it grows."""

    def __init__(self):
        self.names: list[str] = []
        self.image_ids: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.digests: list[bytes] = []
        self.objects: list[Any] = []

    def add(
        self,
        image: AnnotatedImage,
        examined: Examined,
        table: ClassTable,
        found: doctor.SplitFacts,
    ) -> None:
        objects = examined.objects
        assert objects is not None
        self.names.append(image.name)
        self.image_ids.append(len(self.image_ids) if image.id is None else image.id)
        self.sizes.append(examined.size)
        self.digests.append(bytes.fromhex(examined.digest))
        self.objects.append(objects)
        found.images += 1
        found.objects += int((~objects.crowd).sum())
        found.crowds += int(objects.crowd.sum())
        found.by_image[len(objects.labels)] += 1
        found.sizes[examined.size] += 1
        found.by_class.update(table.names[label] for label in objects.labels.tolist())
        for area in objects.areas[~objects.crowd].tolist():
            kind = "small" if area < doctor.SMALL else "medium" if area < doctor.MEDIUM else "large"
            found.by_area[kind] += 1

    def arrays(self) -> dict[str, np.ndarray]:
        counts = [len(objects.labels) for objects in self.objects]

        def joined(parts: list[np.ndarray], empty: np.ndarray) -> np.ndarray:
            return np.concatenate([empty, *parts])

        return {
            "names": np.array(self.names, np.str_),
            "image_ids": np.array(self.image_ids, np.int64),
            "sizes": np.array(self.sizes, np.int32).reshape(-1, 2),
            "digests": np.frombuffer(b"".join(self.digests), np.uint8).reshape(-1, 32),
            "starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            "boxes": joined([o.boxes.values for o in self.objects], np.zeros((0, 4), np.float32)),
            "labels": joined([o.labels for o in self.objects], np.zeros(0, np.int32)),
            "crowd": joined([o.crowd for o in self.objects], np.zeros(0, bool)),
            "areas": joined([o.areas for o in self.objects], np.zeros(0, np.float32)),
            "ids": joined([o.ids for o in self.objects], np.zeros(0, np.int64)),
        }


def _judge(facts: dict[str, doctor.SplitFacts], settings: PrepareSettings) -> None:
    overlap = sum(
        split.findings["duplicate_across_splits"].count
        for split in facts.values()
        if "duplicate_across_splits" in split.findings
    )
    if overlap and not settings.allow_overlap:
        examples = [
            example
            for split in facts.values()
            if "duplicate_across_splits" in split.findings
            for example in split.findings["duplicate_across_splits"].examples
        ]
        raise InputError(
            f"{overlap} images are in two splits, so that evaluation would be on trained images "
            f"({examples[0]}); remove one of each, or give --allow-overlap"
        )
    for name, split in facts.items():
        bad = split.faults / max(split.looked_at, 1)
        if bad > settings.max_bad_fraction:
            raise DataFault(
                f"{bad:.1%} of the images and objects of {name} cannot be used "
                f"({split.faults_in_words()}), more than {settings.max_bad_fraction:.1%}; correct "
                "them or raise --max-bad-fraction"
            )
    train = facts.get("train")
    if train is not None and not train.objects:
        reason = train.faults_in_words() or (
            "none is of a class that --classes names" if settings.classes else "none is listed"
        )
        raise InputError(
            f"no image of the training split has a usable object ({reason}), so there is nothing "
            "to learn; check the export"
        )


def _finish(
    output: epath.Path,
    source: str,
    table: ClassTable,
    written: dict[str, Any],
    report: dict[str, Any],
    settings: PrepareSettings,
) -> None:
    storage.replace_text(output / doctor.REPORT, json.dumps(report, indent=1))
    index = {
        "version": VERSION,
        "source": source,
        "settings": settings.__dict__,
        "classes": [
            {"name": name, "source_id": number}
            for name, number in zip(table.names, table.source_ids)
        ],
        "splits": written,
    }
    # Last: without it the folder is an interrupted preparation.
    storage.replace_text(output / INDEX, json.dumps(index, indent=1))

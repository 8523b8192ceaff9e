"""The dataset doctor: what is in a data set, what is wrong with it, and what was done about it.

Each finding has a kind, a count, a few examples and a remedy. *Faults* make an object or an image
unusable and count against a threshold; *notes* do not. Nothing is left out without a finding.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rtdetr.data.dataset import ClassTable
from training.storage import PathLike, as_path
from training.verdict import Table

EXAMPLES = 3
REPORT = "doctor.json"
# kind -> (is a fault, what is done).
REMEDIES = {
    "missing_image": (True, "image left out"),
    "unreadable_image": (True, "image left out"),
    "box_without_numbers": (True, "object left out"),
    "box_without_area": (True, "object left out"),
    "box_outside": (True, "object left out"),
    "unknown_category": (True, "object left out"),
    "bad_line": (True, "line left out"),
    "bad_entry": (True, "entry left out"),
    "bad_annotation_file": (True, "its image left out"),
    "annotation_without_image": (True, "left out"),
    "unlisted_annotation": (False, "not used: no list of a split names it"),
    "split_without_images": (False, "not written"),
    "split_without_objects": (False, "not written: nothing can be measured on it"),
    "duplicate_image_id": (True, "second image left out"),
    "box_clipped": (False, "clipped to the image"),
    "tiny_box": (False, "kept; a side is below 1 px"),
    "duplicate_box": (False, "kept once"),
    "duplicate_object_id": (False, "kept; ids of objects are not relied on"),
    "difficult_object": (False, "kept as any other"),
    "wrong_size": (False, "size of the file taken"),
    "rotated_by_exif": (False, "turned upright, with its boxes where they were on the raw image"),
    "upright_by_exif": (False, "turned upright; its boxes are taken to be upright already"),
    "image_without_object": (False, "kept: it teaches what is nothing"),
    "unannotated_image": (False, "left out, as --drop-unannotated says"),
    "duplicate_image": (False, "kept"),
    "copy_of_training_image": (False, "left out of the images held out for validation"),
    "duplicate_across_splits": (True, "refused unless --allow-overlap"),
    "gray_image": (False, "read as RGB"),
    "cmyk_image": (False, "read as RGB"),
    "image_of_16_bit": (False, "read with 8 bits"),
    "palette_image": (False, "read as RGB"),
    "transparent_image": (False, "transparency ignored"),
    "unusual_mode": (False, "read as RGB"),
    "class_numbers_differ": (False, "matched by name"),
    "object_of_other_class": (False, "left out, since --classes does not name its class"),
    "grouping_category": (False, "left out"),
    "class_without_object": (False, "kept in the table"),
    "many_objects": (False, "kept; data.max_objects limits training"),
}
MANY = 100  # objects of an image
# COCO's sizes of objects by their area in px²; see cocodataset.org, evaluation.
SMALL, MEDIUM = 32**2, 96**2


@dataclass
class Finding:
    """All cases of one kind in one split."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class SplitFacts:
    """What a split holds, and what was found."""

    images: int = 0
    listed: int = 0
    objects: int = 0
    crowds: int = 0
    by_class: Counter[str] = field(default_factory=Counter)
    by_image: Counter[int] = field(default_factory=Counter)  # objects -> images
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    by_area: Counter[str] = field(default_factory=Counter)  # small, medium, large -> objects
    findings: dict[str, Finding] = field(default_factory=dict)

    def note(self, kind: str, example: str) -> None:
        """Counts one case."""
        assert kind in REMEDIES, kind
        finding = self.findings.setdefault(kind, Finding())
        finding.count += 1
        if len(finding.examples) < EXAMPLES and example not in finding.examples:
            finding.examples.append(example)

    @property
    def faults(self) -> int:
        """Images and objects that could not be used."""
        return sum(f.count for kind, f in self.findings.items() if REMEDIES[kind][0])

    def faults_in_words(self) -> str:
        """Such as "2 missing image, 1 bad line"."""
        return ", ".join(
            f"{finding.count} {kind.replace('_', ' ')}"
            for kind, finding in self.findings.items()
            if REMEDIES[kind][0]
        )

    @property
    def looked_at(self) -> int:
        """Images and objects in all."""
        return self.listed + self.objects + self.faults


def as_json(facts: dict[str, SplitFacts], table: ClassTable) -> dict[str, Any]:
    """The report as it is stored."""
    return {
        "classes": list(table.names),
        "splits": {
            name: {
                "images": split.images,
                "listed": split.listed,
                "objects": split.objects,
                "crowds": split.crowds,
                "by_class": {c: split.by_class[c] for c in table.names},
                "objects_of_an_image": {str(n): c for n, c in sorted(split.by_image.items())},
                "sizes": [[*size, count] for size, count in split.sizes.most_common(20)],
                "aspects": _aspects(split.sizes),
                "by_area": {kind: split.by_area[kind] for kind in ("small", "medium", "large")},
                "findings": {
                    kind: {"count": f.count, "remedy": REMEDIES[kind][1], "examples": f.examples}
                    for kind, f in split.findings.items()
                },
            }
            for name, split in facts.items()
        },
    }


def _aspects(sizes: Counter[tuple[int, int]]) -> dict[str, int]:
    """Width over height to one decimal -> images."""
    aspects: Counter[float] = Counter()
    for (height, width), count in sizes.items():
        aspects[round(width / height, 1)] += count
    return {f"{aspect:.1f}": count for aspect, count in sorted(aspects.items())}


def as_text(report: dict[str, Any]) -> str:
    """The report as it is read on a terminal."""
    lines = []
    for name, split in report["splits"].items():
        lines.append(
            f"{name:<6} {split['images']:,} of {split['listed']:,} images, "
            f"{split['objects']:,} objects, {split['crowds']:,} crowds"
        )
        areas = ", ".join(f"{count:,} {kind}" for kind, count in split["by_area"].items())
        lines.append(f"       objects by area: {areas}")
        for (height, width, count), _ in zip(split["sizes"], range(3)):
            lines.append(f"       {count:>8,} images of {width} x {height} px")
        counts = sorted(split["by_class"].items(), key=lambda item: -item[1])
        for label, count in counts[:10]:
            lines.append(f"       {count:>8,} {label}")
        if len(counts) > 10:
            lines.append(f"       {'':>8} and {len(counts) - 10} more classes")
        for kind, finding in split["findings"].items():
            words = kind.replace("_", " ")
            lines.append(f"  {finding['count']:>6,} {words}: {finding['remedy']}")
            lines += [f"         {example}" for example in finding["examples"]]
    return "\n".join(lines)


def tables_of(folder: PathLike) -> dict[str, Table]:
    """The report of a prepared folder as tables of a run's report; none where it has none."""
    path = as_path(folder) / REPORT
    if not path.exists():
        return {}
    report = json.loads(path.read_text())
    splits = report["splits"]
    classes: list[tuple[Any, ...]] = [
        (name, *(split["by_class"].get(name, 0) for split in splits.values()))
        for name in report["classes"]
    ]
    findings: list[tuple[Any, ...]] = [
        (name, kind.replace("_", " "), f["count"], f["remedy"], "; ".join(f["examples"]))
        for name, split in splits.items()
        for kind, f in split["findings"].items()
    ]
    columns = ("split", "finding", "count", "what was done", "examples")
    return {
        "objects": Table("Objects by class and split", ("class", *splits), classes),
        "doctor": Table("Findings in the data set", columns, findings),
    }

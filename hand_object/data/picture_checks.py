"""Checks of the files of a sequence: frames of one size, and masks that show what has a pose."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hand_object.data.finding import Finding
from hand_object.data.picture_files import read_color, read_gray
from hand_object.data.sequence import CLASS_OF, UNKNOWN, Sequence
from training.errors import InputError


def check_files(sequence: Sequence) -> Finding:
    """Whether each frame and mask is there, whole, and of a size that fits."""
    for frame, (image, mask) in enumerate(zip(sequence.images, sequence.masks, strict=True)):
        shown = image
        try:
            sequence.image(frame)
            if mask is not None:
                shown = mask
                sequence.mask(frame)
        except InputError as error:
            return Finding("frames", "red", str(error), _readable(shown))
    height, width = sequence.file_size
    return Finding("frames", "green", f"{len(sequence)} frames of {width} x {height}")


def _readable(path: Path) -> np.ndarray | None:
    """The picture that is meant, None where it is damaged."""
    try:
        return read_color(path)
    except InputError:
        return None


def check_masks(sequence: Sequence, masks: dict[int, np.ndarray]) -> list[Finding]:
    """Whether masks [H, W] of some frames show the nodes; which frames have none."""
    lost = [frame for frame, path in enumerate(sequence.masks) if path is None]
    if len(lost) == len(sequence):
        sentence = f"{sequence.name} has no masks; hand and object are told apart by color alone"
        return [Finding("masks", "yellow", sentence, sequence.image(0))]
    findings = []
    if lost:
        sentence = (
            f"{sequence.name}: {len(lost)} of {len(sequence)} frames have no mask, first frame "
            f"{lost[0]} ({sequence.images[lost[0]].name}); these teach colors only"
        )
        findings.append(Finding("missing masks", "yellow", sentence, sequence.image(lost[0])))
    known = {frame: mask for frame, mask in masks.items() if (mask != UNKNOWN).any()}
    names = (["object"] if sequence.object is not None else []) + sorted(sequence.hands)
    for name in names if known else ():
        empty = [frame for frame, mask in known.items() if not (mask == CLASS_OF[name]).any()]
        level = (
            "red" if len(empty) == len(known) else "yellow" if len(empty) > len(known) / 3 else ""
        )
        if level:
            sentence = (
                f"{sequence.name}: masks of {name} are empty in {len(empty)} of {len(known)} "
                f"frames looked at, first {empty[0]}{_levels(sequence, empty[0])}; segment it "
                "again (gray 50 object, 150 right hand, 250 left hand)"
            )
            findings.append(Finding(f"masks of {name}", level, sentence, sequence.image(empty[0])))
    return findings or [Finding("masks", "green", f"masks of {len(known)} frames show all")]


def _levels(sequence: Sequence, frame: int) -> str:
    """Gray levels of a mask as words, which tell of numbered classes and binary masks."""
    path = sequence.masks[frame]
    assert path is not None
    held = np.unique(read_gray(path))
    shown = ", ".join(map(str, held[:6].tolist())) + (", ..." if len(held) > 6 else "")
    return f", where {path.name} has the gray levels {shown}"

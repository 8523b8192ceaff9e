"""Which eye: "R", "L" or "" from the words that tags and file names use for it.

OD (oculus dexter) is the right eye, OS (oculus sinister) the left one. OU, both eyes, says nothing
about a volume.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydicom.dataset import Dataset

_WORDS = {"R": {"r", "od", "re", "right"}, "L": {"l", "os", "le", "left"}}
# re and le are too common in names to mean an eye there.
_NAME_WORDS = {"r": "R", "od": "R", "right": "R", "l": "L", "os": "L", "left": "L"}
# Codes of the anatomic region modifier: SNOMED CT, and SNOMED RT of older files.
_CODES = {"24028007": "R", "G-A100": "R", "7771000": "L", "G-A101": "L"}


def eye_of_word(value: Any) -> str:
    """The eye that a tag's value names: "R", "OD", "right eye", ...; "" for anything else."""
    words = set(re.findall(r"[a-z]+", str(value or "").lower()))
    eyes = [eye for eye, names in _WORDS.items() if words & names]
    return eyes[0] if len(eyes) == 1 else ""


def eyes_of_name(name: str) -> set[str]:
    """The eyes that a file or folder name mentions between separators: `1001_OD_12` -> {"R"}."""
    words = re.split(r"[\W_]+", name.lower())
    return {_NAME_WORDS[word] for word in words if word in _NAME_WORDS}


def eye_of_name(name: str) -> str:
    """The eye of a name that mentions exactly one."""
    eyes = eyes_of_name(name)
    return eyes.pop() if len(eyes) == 1 else ""


def eyes_of_dataset(dataset: Dataset) -> set[str]:
    """The eyes that the tags of a file name; the frames of a file can disagree.

    First the image's own tags, then the frame anatomy of every functional group, then the modifier
    of the anatomic region.
    """
    for name in ("ImageLaterality", "Laterality"):
        eye = eye_of_word(dataset.get(name))
        if eye:
            return {eye} | _known(_frame_eyes(dataset))
    return _known(_frame_eyes(dataset)) or _known(_modifier_eyes(dataset))


def _known(eyes: Iterable[str]) -> set[str]:
    return {eye for eye in eyes if eye}


def _frame_eyes(dataset: Dataset) -> Iterable[str]:
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in dataset.get(name) or []:
            for item in group.get("FrameAnatomySequence") or []:
                yield eye_of_word(item.get("FrameLaterality"))
                yield from _modifier_eyes(item)


def _modifier_eyes(dataset: Dataset) -> Iterable[str]:
    """Eyes of AnatomicRegionModifierSequence, at its old place and inside the anatomic region."""
    for scope in (dataset, *(dataset.get("AnatomicRegionSequence") or [])):
        for item in scope.get("AnatomicRegionModifierSequence") or []:
            code = str(item.get("CodeValue") or "")
            yield _CODES.get(code) or eye_of_word(item.get("CodeMeaning"))

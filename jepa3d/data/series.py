"""Single-frame DICOM files that together are one volume, and the stacks of a multi-frame file.

One volume is one series of one person, one eye and one stack, in one folder (two copies of a series
must not become one volume). A file that leaves one of these open goes with its series where that
names only one; otherwise nobody can tell whose it is, and it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from jepa3d.data.dicom import DicomIdentity
from jepa3d.data.image_groups import describe
from jepa3d.data.volume import SkipReason
from jepa3d.data.walk import Named

Found = tuple[str, DicomIdentity]
_ASPECTS = ("participant", "laterality", "stack")


def split_series(found: Iterable[Found]) -> tuple[list[list[Found]], list[Named]]:
    """Groups single-frame files of series into volumes.

    Args:
      found: (path, identity) of files with at most one frame and a series UID.

    Returns:
      The files of each volume, and those that cannot be told apart, each with the names of the
      others that make it so.
    """
    series: dict[tuple[str, str], list[Found]] = {}
    for path, identity in found:
        folder = PurePosixPath(path).parent.as_posix()
        series.setdefault((folder, identity.series), []).append((path, identity))
    volumes: list[list[Found]] = []
    refused: list[Named] = []
    for members in series.values():
        known = {aspect: _known(members, aspect) for aspect in _ASPECTS}
        if len(known["stack"]) == len(members):
            known["stack"] = []  # a number for each frame: it counts them
        groups: dict[tuple[str, ...], list[Found]] = {}
        for path, identity in members:
            key = tuple(_resolved(identity, aspect, known[aspect]) for aspect in _ASPECTS)
            open_aspects = [a for a, value in zip(_ASPECTS, key) if not value and known[a]]
            if open_aspects:
                refused.append(_refusal(path, open_aspects[0], known[open_aspects[0]]))
            else:
                groups.setdefault(key, []).append((path, identity))
        volumes += groups.values()
    return volumes, refused


def _known(members: list[Found], aspect: str) -> list[str]:
    return sorted({getattr(identity, aspect) for _, identity in members} - {""})


def _resolved(identity: DicomIdentity, aspect: str, known: list[str]) -> str:
    """The file's own value, else the only one that its series names; "" while that is open."""
    own = getattr(identity, aspect)
    if own in known:
        return own
    return known[0] if len(known) == 1 else ""


def _refusal(path: str, aspect: str, known: list[str]) -> Named:
    return Named(
        path,
        SkipReason.MIXED_VOLUMES,
        f"the file names no {aspect}, while others of its series name {describe(known)}; "
        "give each volume a folder of its own",
    )

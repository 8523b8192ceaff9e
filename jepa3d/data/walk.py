"""Goes through an input folder once: each regular file, and the names of everything else.

A link to a folder is followed unless what it leads to is met under another path, so that no file is
read twice and no cycle is entered. Nothing is opened: a pipe would wait for its writer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jepa3d.data.volume import SkipReason

_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True)
class Named:
    """A path that is no volume-to-be, with the reason that its row of the index gives."""

    path: str  # relative to the input folder, with "/"
    reason: SkipReason
    detail: str


@dataclass
class Walk:
    """What lies under an input folder.

    Attributes:
      files: relative paths of regular files, folder by folder, sorted.
      named: what is no regular file, is hidden, or cannot be entered.
    """

    files: list[str] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)


def walk(root: Path, skipped_folder: Path) -> Walk:
    """Lists everything under `root` but `skipped_folder`."""
    result = Walk()
    links: list[Path] = []
    # First all real folders, so that a link never hides the place where its files belong.
    seen = {_identity(os.stat(root)): "."}
    _enter(root, root, skipped_folder, result, links, seen)
    while links:
        link = links.pop(0)
        where = seen.get(_identity(os.stat(link)))
        if where is not None or link.resolve() == skipped_folder:
            detail = f"a link to the folder {where or skipped_folder}, which has its own rows"
            result.named.append(Named(_relative(link, root), SkipReason.OTHER_FILE, detail))
            continue
        seen[_identity(os.stat(link))] = _relative(link, root)
        _enter(root, link, skipped_folder, result, links, seen)
    return result


def _enter(
    root: Path,
    top: Path,
    skipped_folder: Path,
    result: Walk,
    links: list[Path],
    seen: dict[tuple[int, int], str],
) -> None:
    """Adds what lies under `top`; links to folders are only collected."""

    def refused(error: OSError) -> None:
        path = _relative(Path(os.fsdecode(error.filename)), root)
        detail = f"the folder cannot be entered ({error.strerror})"
        result.named.append(Named(path, SkipReason.UNREADABLE_FILE, detail))

    for folder, folders, files in os.walk(top, onerror=refused):
        here, entered = Path(folder), []
        for name in sorted(folders):
            path = here / name
            if name.startswith("."):
                named = Named(_relative(path, root), SkipReason.OTHER_FILE, "a hidden folder")
                result.named.append(named)
            elif path.is_symlink():
                links.append(path)
            elif path != skipped_folder and _identity(os.stat(path)) not in seen:
                seen[_identity(os.stat(path))] = _relative(path, root)
                entered.append(name)
        folders[:] = entered
        for name in sorted(files):
            _add_file(here / name, root, result)


def _add_file(path: Path, root: Path, result: Walk) -> None:
    relative = _relative(path, root)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        detail = "a link to nothing" if path.is_symlink() else f"no access ({error.strerror})"
        result.named.append(Named(relative, SkipReason.MISSING_FILE, detail))
        return
    special = next((words for test, words in _SPECIAL if test(mode)), "")
    if special:
        result.named.append(Named(relative, SkipReason.UNREADABLE_FILE, f"{special}, not a file"))
    elif path.name.startswith("."):
        result.named.append(Named(relative, SkipReason.OTHER_FILE, "a hidden file"))
    else:
        result.files.append(relative)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def by_folder(files: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(folder, its files) for each folder, in the order of `files`."""
    folders: dict[str, list[str]] = {}
    for path in files:
        folders.setdefault(path.rpartition("/")[0] or ".", []).append(path)
    yield from folders.items()

"""Finds the inputs: files and folders that may be volumes, with what manifests say about them.

An AI-READI tree has `retinal_oct/manifest.tsv` (columns differ by release: `person_id` or
`participant_id`) and `participants.tsv`; `filepath` there starts with "/" and is relative to the
root. Every DICOM-like file under the input folder is taken, in the manifest or not, and so is every
manifest row whose file is missing.
"""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from etils import epath

from jepa3d.config import PrepareSettings
from jepa3d.data.dicom import DicomIdentity, read_identity
from jepa3d.data.scanners import (
    UNKNOWN_SCANNER,
    scanner_from_folder,
    scanner_from_path,
    scanner_name,
)
from jepa3d.data.stacks import IMAGE_SUFFIXES, natural_key
from jepa3d.data.volume import SkipVolume
from training.errors import InputError

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_ARRAY_SUFFIXES = (".vol", ".npy", ".npz")
_PARTICIPANT_COLUMNS = ("person_id", "participant_id")
# Never looked into: they are not data, and there may be many of them.
_TEXT_SUFFIXES = (".tsv", ".csv", ".json", ".jsonl", ".md", ".txt", ".xlsx", ".xml", ".html", ".py")


@dataclass(frozen=True)
class InputItem:
    """One volume-to-be.

    Attributes:
      path: relative to the input folder; of the file, or of the folder of images.
      members: all files of a series of single-frame DICOM files, else empty.
      participant, scanner: as far as known without reading pixels.
      promising: False when it is already clear that no volume will come of it.
    """

    path: str
    participant: str
    scanner: str = UNKNOWN_SCANNER
    members: tuple[str, ...] = ()
    promising: bool = True


@dataclass
class Inventory:
    """All inputs, the recommended split by participant, and how many files were left aside."""

    items: list[InputItem] = field(default_factory=list)
    recommended: dict[str, str] = field(default_factory=dict)
    ignored_files: int = 0


def take_inventory(root: Path, output: epath.Path | Path, settings: PrepareSettings) -> Inventory:
    """Lists every input under `root`; `output` may lie inside and is not looked into.

    Raises:
      InputError: missing or empty folder, or a manifest without the columns that are needed.
    """
    if not root.is_dir():
        raise InputError(f"input folder {root} does not exist")
    base = _dataset_root(root)
    manifest = _read_manifest(root)
    inventory = Inventory(recommended=_recommended_splits(base))
    candidates, images = _scan(root, output, inventory)
    inventory.items += _manifest_items(manifest, root, base)
    listed = {item.path for item in inventory.items}
    inventory.items += _dicom_items([p for p in candidates if p not in listed], root, settings)
    for folder, count in images.items():
        if count > 1:
            inventory.items.append(_plain_item(root, folder, settings))
        else:
            inventory.ignored_files += 1
    inventory.items.sort(key=lambda item: natural_key(item.path))
    if not inventory.items:
        raise InputError(
            f"input folder {root} holds no DICOM file, .vol, .npy, .npz or folder of B-scan images"
        )
    return inventory


def _dataset_root(root: Path) -> Path:
    """The folder that manifest paths start from: `root`, or its parent for `.../retinal_oct`."""
    return root.parent if root.name == "retinal_oct" else root


def _read_manifest(root: Path) -> list[dict[str, str]]:
    for path in (root / "retinal_oct" / "manifest.tsv", root / "manifest.tsv"):
        if path.is_file():
            rows = _read_table(path)
            columns = set(rows[0]) if rows else {"filepath", "person_id"}
            if "filepath" not in columns or not columns & set(_PARTICIPANT_COLUMNS):
                raise InputError(
                    f"{path} needs the columns filepath and person_id (or participant_id), "
                    f"it has {', '.join(sorted(columns))}"
                )
            return rows
    return []


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        # -sig: tables saved by a spreadsheet may begin with a byte order mark.
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a tab-separated table ({error})") from error
    # Cells beyond the header come under the key None.
    return [{key: value or "" for key, value in row.items() if key} for row in rows]


def _recommended_splits(base: Path) -> dict[str, str]:
    """Participant -> train, eval or test from `participants.tsv`; other words are ignored."""
    path = base / "participants.tsv"
    names = {"train": "train", "val": "eval", "validation": "eval", "eval": "eval", "test": "test"}
    splits = {}
    for row in _read_table(path) if path.is_file() else []:
        split = names.get(row.get("recommended_split", "").strip().lower())
        if split:
            splits[_participant_of(row)] = split
    return splits


def _participant_of(row: dict[str, str]) -> str:
    return next((row[c].strip() for c in _PARTICIPANT_COLUMNS if row.get(c)), "")


def _scan(
    root: Path, output: epath.Path | Path, inventory: Inventory
) -> tuple[list[str], dict[str, int]]:
    """Relative paths of DICOM-like and array files, and number of images by folder."""
    candidates: list[str] = []
    images: dict[str, int] = {}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and here / name != output
        )
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if name.startswith(".") or suffix in _TEXT_SUFFIXES:
                inventory.ignored_files += 1
            elif suffix in (*_DICOM_SUFFIXES, *_ARRAY_SUFFIXES) or (
                suffix not in IMAGE_SUFFIXES and _has_dicom_prefix(here / name)
            ):
                candidates.append((here / name).relative_to(root).as_posix())
            elif suffix in IMAGE_SUFFIXES:
                relative = here.relative_to(root).as_posix()
                images[relative] = images.get(relative, 0) + 1
            else:
                inventory.ignored_files += 1
    return candidates, images


def _has_dicom_prefix(path: Path) -> bool:
    if not path.is_file():  # a pipe or a device would block
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _manifest_items(rows: list[dict[str, str]], root: Path, base: Path) -> list[InputItem]:
    items = {}
    for row in rows:
        # A path join with the leading slash would drop the root.
        full = base / row["filepath"].strip().lstrip("/")
        path = full.relative_to(root) if full.is_relative_to(root) else Path(row["filepath"])
        folder_scanner = scanner_from_folder(full.as_posix())
        tags = scanner_name(row.get("manufacturer", ""), row.get("manufacturers_model_name", ""))
        items[path.as_posix().lstrip("/")] = InputItem(
            path=path.as_posix().lstrip("/"),
            participant=_participant_of(row),
            scanner=folder_scanner or tags,
            promising=row.get("number_of_frames", "") != "1" and full.is_file(),
        )
    return list(items.values())


def _dicom_items(paths: list[str], root: Path, settings: PrepareSettings) -> list[InputItem]:
    """Items of files that no manifest lists; single-frame files of one series become one item."""
    items: list[InputItem] = []
    series: dict[tuple[str, str], list[tuple[str, DicomIdentity]]] = {}
    for path in paths:
        if Path(path).suffix.lower() in _ARRAY_SUFFIXES:
            items.append(_plain_item(root, path, settings))
            continue
        try:
            identity = read_identity(root / path)
        except SkipVolume:
            items.append(_plain_item(root, path, settings, promising=False))
            continue
        if identity.frames <= 1 and identity.series:
            # By folder as well: two copies of a series must not become one volume.
            key = (Path(path).parent.as_posix(), identity.series)
            series.setdefault(key, []).append((path, identity))
        else:
            items.append(_item(path, identity, settings))
    for members in series.values():
        paths_in_order = tuple(path for path, _ in members)
        item = _item(paths_in_order[0], members[0][1], settings)
        grouped = paths_in_order if len(members) > 1 else ()
        items.append(
            InputItem(item.path, item.participant, item.scanner, grouped, len(members) > 1)
        )
    return items


def _item(path: str, identity: DicomIdentity, settings: PrepareSettings) -> InputItem:
    participant = participant_from_path(path, settings) or identity.participant or path
    return InputItem(path, participant, scanner_from_folder(path) or identity.scanner)


def _plain_item(
    root: Path, path: str, settings: PrepareSettings, promising: bool = True
) -> InputItem:
    """An item of which only the path is known: its own participant, unless a pattern says."""
    participant = participant_from_path(path, settings) or (root.name if path == "." else path)
    return InputItem(path, participant, scanner_from_path((root / path).as_posix()), (), promising)


def participant_from_path(path: str, settings: PrepareSettings) -> str:
    """Group 1 of the configured pattern, else the person's folder of an AI-READI path, else ""."""
    if settings.participant_pattern:
        found = re.search(settings.participant_pattern, path)
        if found:
            return found.group(1)
    found = re.search(r"structural_oct/[^/]+/([^/]+)/", path)
    return found.group(1) if found else ""

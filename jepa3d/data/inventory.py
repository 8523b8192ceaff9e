"""Finds the inputs: files and folders that may be volumes, with what manifests say about them.

Every file under the input folder is either an `InputItem` (or a part or a member of one) or is
named with the reason why it is none, and so is every manifest row whose file is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from etils import epath

from jepa3d.config import PrepareSettings
from jepa3d.data import manifest
from jepa3d.data.archives import is_archive, unpacked
from jepa3d.data.dicom import DicomIdentity, read_identity
from jepa3d.data.formats import format_of, participant_of_file, parts_of_file
from jepa3d.data.image_groups import group_images, natural_key
from jepa3d.data.images import IMAGE_SUFFIXES, mixed_names, page_count
from jepa3d.data.reader import DICOM_SUFFIXES
from jepa3d.data.scanners import (
    UNKNOWN_SCANNER,
    scanner_from_folder,
    scanner_from_path,
    scanner_name,
)
from jepa3d.data.series import Found, split_series
from jepa3d.data.volume import SkipReason, SkipVolume
from jepa3d.data.walk import Named, by_folder, walk
from training.errors import InputError

# Never looked into: they are not data, and there may be many of them.
_TEXT_SUFFIXES = (".tsv", ".csv", ".json", ".jsonl", ".md", ".txt", ".xlsx", ".xml", ".html", ".py")


@dataclass(frozen=True)
class InputItem:
    """One volume-to-be.

    Attributes:
      path: relative to the input folder; of the file, of the folder of images, or of the first of
        the `members`. Of one `part` among several in a file: `FILE#PART`.
      members: all files of a series of single-frame DICOM files, or all images of a volume that
        shares its folder; else empty.
      participant, scanner: as far as known without reading pixels.
      promising: False when it is already clear that no volume will come of it.
      part: which volume of the file, "" where it holds one.
    """

    path: str
    participant: str
    scanner: str = UNKNOWN_SCANNER
    members: tuple[str, ...] = ()
    promising: bool = True
    part: str = ""

    @property
    def file(self) -> str:
        """The file or folder on the disk."""
        return self.path.removesuffix(f"#{self.part}") if self.part else self.path


@dataclass
class Inventory:
    """All inputs, the recommended split by participant, and the files that are no inputs."""

    items: list[InputItem] = field(default_factory=list)
    recommended: dict[str, str] = field(default_factory=dict)
    named: list[Named] = field(default_factory=list)


def take_inventory(root: Path, output: epath.Path | Path, settings: PrepareSettings) -> Inventory:
    """Lists every input under `root`; `output` may lie inside and is not looked into.

    Raises:
      InputError: missing or empty folder, or a manifest without the columns that are needed.
    """
    if not root.is_dir():
        raise InputError(f"input folder {root} does not exist")
    base = manifest.dataset_root(root)
    rows = manifest.read_manifest(root)
    found = walk(root, Path(output))
    inventory = Inventory(recommended=manifest.recommended_splits(base), named=found.named)
    inventory.items += _manifest_items(rows, root, base)
    listed = {item.path for item in inventory.items}
    files = [path for path in found.files if path not in listed]
    candidates = _without_images(files, root, inventory)
    inventory.items += _dicom_items(candidates, root, settings, inventory)
    for folder, names in by_folder([path for path in files if _suffix(path) in IMAGE_SUFFIXES]):
        inventory.items += _image_items(root, folder, names, settings, inventory)
    inventory.items.sort(key=lambda item: natural_key(item.path))
    if not inventory.items:
        raise InputError(
            f"input folder {root} holds no DICOM or other OCT file and no folder of B-scans"
            + "".join(f"; {named.path}: {named.detail}" for named in inventory.named[:1])
        )
    return inventory


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _without_images(files: list[str], root: Path, inventory: Inventory) -> list[str]:
    """The DICOM-like and array files; what is neither they nor images is named."""
    candidates = []
    for path in files:
        suffix = _suffix(path)
        if suffix in IMAGE_SUFFIXES:
            continue
        if suffix in _TEXT_SUFFIXES:
            inventory.named.append(Named(path, SkipReason.OTHER_FILE, "a table or a text"))
        elif _known_by_name(path) or _has_dicom_prefix(root / path):
            candidates.append(path)
        else:
            inventory.named.append(Named(path, SkipReason.OTHER_FILE, "no volume by its name"))
    return candidates


def _known_by_name(path: str) -> bool:
    return _suffix(path) in DICOM_SUFFIXES or is_archive(path) or format_of(path) is not None


def _has_dicom_prefix(path: Path) -> bool:
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
            participant=manifest.participant_of(row),
            scanner=folder_scanner or tags,
            promising=row.get("number_of_frames", "") != "1" and full.is_file(),
        )
    return list(items.values())


def _dicom_items(
    paths: list[str], root: Path, settings: PrepareSettings, inventory: Inventory
) -> list[InputItem]:
    """Items of files that no manifest lists; single-frame files of one volume become one item."""
    items: list[InputItem] = []
    singles: list[Found] = []
    for path in paths:
        if is_archive(path):
            items += _archive_items(root, path, settings)
            continue
        if format_of(path):
            items += _format_items(root, path, settings)
            continue
        try:
            identity = read_identity(root / path)
        except SkipVolume:
            items.append(_plain_item(root, path, settings, promising=False))
            continue
        participant = participant_from_path(path, settings) or identity.participant
        identity = replace(identity, participant=participant)
        if identity.frames <= 1 and identity.series:
            singles.append((path, identity))
        elif identity.stacks:
            whole = _item(path, identity)
            items += [replace(whole, path=f"{path}#{n}", part=n) for n in identity.stacks]
        else:
            items.append(_item(path, identity))
    volumes, refused = split_series(singles)
    inventory.named += refused
    for members in volumes:
        paths_in_order = tuple(path for path, _ in members)
        several = len(members) > 1
        item = _item(paths_in_order[0], members[0][1])
        items.append(replace(item, members=paths_in_order if several else (), promising=several))
    return items


def _format_items(root: Path, path: str, settings: PrepareSettings) -> list[InputItem]:
    """The file, or each volume of one that holds several; whose it is, by its own words."""
    item = _plain_item(root, path, settings)
    person, parts = parts_of_file(root / path)
    person = person or participant_of_file(root / path)
    if person and not participant_from_path(path, settings):
        item = replace(item, participant=person)
    if len(parts) < 2:
        return [item]
    return [replace(item, path=f"{path}#{part}", part=part) for part in parts]


def _archive_items(root: Path, path: str, settings: PrepareSettings) -> list[InputItem]:
    """The archive, or each volume of one that holds several, `FILE#PATH INSIDE`."""
    whole = _plain_item(root, path, settings)
    try:
        with unpacked(root / path) as folder:
            inside = take_inventory(folder, folder / ".none", settings).items
    except (SkipVolume, InputError):
        return [replace(whole, promising=False)]  # Reading it will say what is wrong.
    items = []
    for item in inside:
        own = item.participant not in (item.path, folder.name)
        known = participant_from_path(path, settings) or (item.participant if own else path)
        scanner = whole.scanner if item.scanner == UNKNOWN_SCANNER else item.scanner
        found = replace(whole, participant=known, scanner=scanner, promising=item.promising)
        if len(inside) > 1:
            found = replace(found, path=f"{path}#{item.path}", part=item.path)
        items.append(found)
    return items


def inside_archive(folder: Path, item: InputItem, settings: PrepareSettings) -> InputItem:
    """What an item of an archive is in the folder that the archive was unpacked into.

    Raises:
      SkipVolume: nothing that could be a volume.
    """
    try:
        inside = take_inventory(folder, folder / ".none", settings).items
    except InputError as error:
        raise SkipVolume(SkipReason.UNSUPPORTED_FORMAT, "nothing in it is a volume") from error
    chosen = [found for found in inside if found.path == item.part or not item.part]
    if len(chosen) != 1:
        raise SkipVolume(
            SkipReason.MIXED_VOLUMES,
            f"the archive holds {len(inside)} volumes; name one as {item.file}#PATH",
        )
    return chosen[0]


def _image_items(
    root: Path, folder: str, paths: list[str], settings: PrepareSettings, inventory: Inventory
) -> list[InputItem]:
    """Items of the images of one folder: the folder, or each of its volumes by their files."""
    stacks = [path for path in paths if page_count(root / path) > 1]
    items = [_plain_item(root, path, settings) for path in stacks]
    names = [PurePosixPath(path).name for path in paths if path not in stacks]
    prefix = "" if folder == "." else f"{folder}/"
    found = group_images(names, lambda name: _by_pattern(prefix + name, settings))
    if len(names) == 1:
        inventory.named.append(Named(prefix + names[0], SkipReason.OTHER_FILE, "a single image"))
    elif not found.together:
        detail = mixed_names(found)
        named = [Named(prefix + name, SkipReason.MIXED_VOLUMES, detail) for name in names]
        inventory.named += named
    elif len(found.groups) == 1 and not stacks:
        # The folder stands for its images, whose names may say more of the person than its own.
        first = _plain_item(root, prefix + found.groups[0][0], settings)
        person = _by_pattern(first.path, settings)
        whole = _plain_item(root, folder, settings)
        items.append(replace(whole, participant=person) if person else whole)
    else:
        items += [_group_item(root, prefix, group, settings) for group in found.groups]
        inventory.named += [
            Named(prefix + name, SkipReason.OTHER_FILE, "an image without a number")
            for name in found.left_out
        ]
    return items


def _group_item(root: Path, prefix: str, group: list[str], settings: PrepareSettings) -> InputItem:
    members = tuple(prefix + name for name in group)
    return replace(_plain_item(root, members[0], settings), members=members)


def _by_pattern(path: str, settings: PrepareSettings) -> str:
    """Group 1 of the configured pattern, "" without one."""
    found = re.search(settings.participant_pattern, path) if settings.participant_pattern else None
    return found.group(1) if found else ""


def _item(path: str, identity: DicomIdentity) -> InputItem:
    scanner = scanner_from_folder(path) or identity.scanner
    return InputItem(path, identity.participant or path, scanner)


def _plain_item(
    root: Path, path: str, settings: PrepareSettings, promising: bool = True
) -> InputItem:
    """An item of which only the path is known: its own participant, unless a pattern says."""
    participant = participant_from_path(path, settings) or (root.name if path == "." else path)
    return InputItem(path, participant, scanner_from_path((root / path).as_posix()), (), promising)


def participant_from_path(path: str, settings: PrepareSettings) -> str:
    """Group 1 of the configured pattern, else the person's folder of an AI-READI path, else ""."""
    found = re.search(r"structural_oct/[^/]+/([^/]+)/", path)
    return _by_pattern(path, settings) or (found.group(1) if found else "")

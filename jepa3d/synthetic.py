"""A small AI-READI-like tree of phantoms (`jepa3d.phantom`): data without a license.

`write_tree` writes valid DICOM of four scanner types with the peculiarities of each (where spacing
is stored, which codec), a manifest, participants with recommended splits and known disease, and a
few files that preparation must skip with a reason.
"""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from jepa3d.phantom import DRUSEN, FIELD_MM, OUTER_LOSS, retina

OPT_SOP_CLASS = UID("1.2.840.10008.5.1.4.1.1.77.1.5.4")
HEIGHT_MAP_SOP_CLASS = UID("1.2.840.10008.5.1.4.1.1.66.5")


@dataclass(frozen=True)
class Scanner:
    """How one scanner type writes its files."""

    folder: str
    manufacturer: str
    model: str
    protocol: str
    gain: float  # brightness of tissue, 0..1
    floor: float  # noise floor, 0..1
    spacing: str  # "shared", "per_frame" or "cirrus" (pitch tag holds the lateral spacing)
    rle: bool = False


SCANNERS = (
    Scanner(
        "heidelberg_spectralis",
        "Heidelberg Engineering",
        "Spectralis",
        "spectralis ppol mac hr oct",
        1.0,
        0.02,
        "shared",
    ),
    Scanner(
        "topcon_maestro2", "Topcon", "Maestro2", "maestro2 3d macula oct", 0.7, 0.18, "shared", True
    ),
    Scanner("topcon_triton", "Topcon", "Triton", "triton 3d radial oct", 0.8, 0.12, "per_frame"),
    Scanner("zeiss_cirrus", "Zeiss", "Cirrus", "cirrus mac oct", 0.9, 0.08, "cirrus"),
)


def dicom_volume(
    pixels: np.ndarray,
    scanner: Scanner,
    *,
    participant: str,
    laterality: str,
    uid: str,
    directions: np.ndarray | None = None,
) -> Dataset:
    """A conformant Ophthalmic Tomography dataset of a volume.

    Args:
      pixels: uint8 [frame, row, column].
      scanner: decides the tags of the maker and where spacing is stored.
      participant, laterality, uid: identity; `uid` is the SOP instance.
      directions: [frame, 3] row direction of each B-scan, for a scan that is not a raster.
    """
    frames, rows, columns = pixels.shape
    pitch, axial, lateral = (f / n for f, n in zip(FIELD_MM, pixels.shape))
    dataset = _identified(scanner, participant, laterality, uid, OPT_SOP_CLASS)
    dataset.Modality = "OPT"
    dataset.NumberOfFrames = frames
    _set_image(dataset, rows, columns)
    measures = Dataset()
    measures.PixelSpacing = [f"{axial:.6f}", f"{lateral:.6f}"]
    measures.SliceThickness = f"{lateral if scanner.spacing == 'cirrus' else pitch:.6f}"
    shared = Dataset()
    if scanner.spacing != "per_frame":
        shared.PixelMeasuresSequence = Sequence([measures])
    if directions is None:
        shared.PlaneOrientationSequence = Sequence([_orientation(np.array([1.0, 0.0, 0.0]))])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for index in range(frames):
        group = Dataset()
        content = Dataset()
        content.StackID, content.InStackPositionNumber = "1", index + 1
        content.DimensionIndexValues = [1, index + 1]
        group.FrameContentSequence = Sequence([content])
        if scanner.spacing != "cirrus":  # Cirrus files give no usable position
            position = Dataset()
            position.ImagePositionPatient = ["0", "0", f"{index * pitch:.6f}"]
            group.PlanePositionSequence = Sequence([position])
        if scanner.spacing == "per_frame":
            group.PixelMeasuresSequence = Sequence([measures])
        if directions is not None:
            group.PlaneOrientationSequence = Sequence([_orientation(directions[index])])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    if scanner.rle:
        dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def _orientation(row_direction: np.ndarray) -> Dataset:
    item = Dataset()
    item.ImageOrientationPatient = [*(f"{v:.6f}" for v in row_direction), "0", "1", "0"]
    return item


def _identified(
    scanner: Scanner, participant: str, laterality: str, uid: str, sop_class: UID
) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, UID(uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, UID(uid)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID(uid + ".1"), UID(uid + ".2")
    dataset.PatientID, dataset.PatientName = participant, ""
    dataset.Manufacturer, dataset.ManufacturerModelName = scanner.manufacturer, scanner.model
    dataset.ProtocolName, dataset.ImageLaterality = scanner.protocol, laterality
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    return dataset


def _set_image(dataset: Dataset, rows: int, columns: int) -> None:
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0


_MANIFEST_COLUMNS = (
    "person_id",
    "manufacturer",
    "manufacturers_model_name",
    "anatomic_region",
    "imaging",
    "laterality",
    "height",
    "width",
    "number_of_frames",
    "pixel_spacing",
    "slice_thickness",
    "sop_instance_uid",
    "filepath",
    "reference_instance_uid",
    "reference_filepath",
)


def write_tree(
    folder: str | Path,
    *,
    participants: int = 24,
    shape: tuple[int, int, int] = (16, 192, 128),
    seed: int = 0,
    faulty_files: bool = True,
    diseased: bool = False,
) -> Path:
    """Writes an AI-READI-like tree with both eyes of each participant.

    Participants take the scanners in turn; of six with one scanner four are for training. What is
    wrong with whom stands in `participants.tsv`: `drusen` (none, small, medium, large),
    `outer_loss` (no, yes) and the `thickness` of the retina in mm.
    With `faulty_files` one file of each kind is added that preparation must skip: a radial scan, a
    truncated file, a height map beside the volumes, and a manifest row without its file.

    Args:
      folder: made if missing.
      participants: number of people, two volumes each.
      shape: [frame, row, column] of the files; the field is always `FIELD_MM`.
      seed: the tree is a function of it.
      diseased: give three of four participants drusen, and half of all an outer loss; otherwise
        everybody is healthy.

    Returns:
      The folder.
    """
    root = Path(folder)
    generator = np.random.default_rng(seed)
    # Of a generator of its own: the healthy tree is the same with and without the sick.
    fates = np.random.default_rng([seed, 1])
    rows, found = [], []
    for number in range(participants):
        person, scanner = str(1001 + number), SCANNERS[number % len(SCANNERS)]
        drusen, outer_loss = list(DRUSEN)[fates.integers(len(DRUSEN))], fates.integers(2)
        if not diseased:
            drusen, outer_loss = "none", 0
        disease = dataclasses.replace(DRUSEN[drusen], outer_loss=OUTER_LOSS * outer_loss)
        thickness, pit = generator.uniform(0.14, 0.2), generator.uniform(0.4, 0.8)
        for side in "RL":
            pixels = retina(
                generator,
                shape,
                thickness=thickness,
                pit=pit,
                left_eye=side == "L",
                gain=scanner.gain,
                floor=scanner.floor,
                disease=disease,
            )
            uid = _uid(generator)
            dataset = dicom_volume(pixels, scanner, participant=person, laterality=side, uid=uid)
            path = _file_path(scanner, person, side, uid)
            _save(dataset, root / path)
            rows.append(_manifest_row(scanner, person, side, uid, path, shape))
        loss = "yes" if outer_loss else "no"
        found.append((drusen, loss, f"{FIELD_MM[1] * thickness:.4f}"))
    if faulty_files:
        rows += _write_faulty(root, generator, shape)
    _write_table(root / "retinal_oct" / "manifest.tsv", _MANIFEST_COLUMNS, rows)
    _write_participants(root, found)
    return root


def _uid(generator: np.random.Generator) -> str:
    return f"2.25.{generator.integers(10**17, 10**18)}"


def _file_path(scanner: Scanner, person: str, side: str, uid: str) -> str:
    protocol = scanner.protocol.replace(" ", "_")
    name = f"{person}_{protocol}_{side.lower()}_{uid}.dcm"
    return f"retinal_oct/structural_oct/{scanner.folder}/{person}/{name}"


def _manifest_row(
    scanner: Scanner, person: str, side: str, uid: str, path: str, shape: tuple[int, int, int]
) -> dict[str, str]:
    _, axial, lateral = (f / n for f, n in zip(FIELD_MM, shape))
    return {
        "person_id": person,
        "manufacturer": scanner.manufacturer.split()[0],
        "manufacturers_model_name": scanner.model,
        "anatomic_region": "Macula",
        "imaging": "OCT",
        "laterality": side,
        "height": str(shape[1]),
        "width": str(shape[2]),
        "number_of_frames": str(shape[0]),
        "pixel_spacing": f"[{axial:.6f}, {lateral:.6f}]",
        "slice_thickness": "Not reported",
        "sop_instance_uid": uid,
        "filepath": "/" + path,
    }


def _save(dataset: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _write_faulty(
    root: Path, generator: np.random.Generator, shape: tuple[int, int, int]
) -> list[dict[str, str]]:
    """The files that must be skipped, and their manifest rows."""
    person, rows = "1001", []
    spectralis = SCANNERS[0]
    radial = Scanner(
        spectralis.folder,
        spectralis.manufacturer,
        spectralis.model,
        "spectralis disc oct",
        1.0,
        0.02,
        "shared",
    )
    angles = np.linspace(0, np.pi, shape[0], endpoint=False)
    directions = np.stack([np.cos(angles), np.zeros_like(angles), np.sin(angles)], axis=1)
    for scanner, kind in ((radial, "radial"), (SCANNERS[1], "truncated"), (SCANNERS[3], "missing")):
        uid = _uid(generator)
        path = _file_path(scanner, person, "R", uid)
        if kind != "missing":
            dataset = dicom_volume(
                retina(generator, shape),
                scanner,
                participant=person,
                laterality="R",
                uid=uid,
                directions=directions if kind == "radial" else None,
            )
            _save(dataset, root / path)
        if kind == "truncated":
            data = (root / path).read_bytes()
            (root / path).write_bytes(data[: len(data) * 2 // 3])
        rows.append(_manifest_row(scanner, person, "R", uid, path, shape))
    _write_height_map(root, generator, person)
    return rows


def _write_height_map(root: Path, generator: np.random.Generator, person: str) -> None:
    """A segmentation: no PixelData, by right, and no row in the manifest."""
    uid = _uid(generator)
    dataset = _identified(SCANNERS[2], person, "R", uid, HEIGHT_MAP_SOP_CLASS)
    dataset.Modality = "SEG"
    _save(dataset, root / "retinal_octa" / "segmentation" / f"{person}_heightmap_{uid}.dcm")


def _write_participants(root: Path, found: list[tuple[str, str, str]]) -> None:
    """`found`: drusen, outer loss and thickness of each participant."""
    groups = ("healthy", "pre_diabetes_lifestyle_controlled", "insulin_dependent")
    rows = [
        {
            "participant_id": str(1001 + number),
            "clinical_site": "synthetic",
            "study_group": groups[number % len(groups)],
            "age": str(40 + number),
            "recommended_split": _recommended_split(number),
            "drusen": drusen,
            "outer_loss": outer_loss,
            "thickness": thickness,
        }
        for number, (drusen, outer_loss, thickness) in enumerate(found)
    ]
    _write_table(root / "participants.tsv", tuple(rows[0]), rows)


def _recommended_split(number: int) -> str:
    """Of six participants with one scanner one is for "val" and one for "test"."""
    rank, scanner = divmod(number, len(SCANNERS))
    return {scanner % 6: "val", (scanner + 3) % 6: "test"}.get(rank % 6, "train")


def _write_table(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)

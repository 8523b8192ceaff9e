"""Small OPT files for tests, with any tag changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from jepa3d.synthetic import SCANNERS, Scanner, dicom_volume

SHARED = SCANNERS[0]
PLAIN = Scanner("", "Maker", "Model", "volume", 1.0, 0.0, "shared")


def random_pixels(shape=(6, 64, 48), seed=0) -> np.ndarray:
    """uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def make_dataset(pixels: np.ndarray, scanner: Scanner = PLAIN, **options) -> Dataset:
    """A dataset with sane spacing whatever the shape (pitch 0.1, axial 0.004, lateral 0.01 mm)."""
    chosen = {"participant": "p1", "laterality": "R", "uid": "2.25.77"} | options
    dataset = dicom_volume(pixels, scanner, **chosen)
    set_spacing(dataset, (0.1, 0.004, 0.01))
    return dataset


def set_spacing(dataset: Dataset, spacing_mm) -> None:
    """Writes pitch, axial and lateral spacing where the dataset keeps them."""
    pitch, axial, lateral = spacing_mm
    measures = Dataset()
    measures.PixelSpacing = [str(axial), str(lateral)]
    measures.SliceThickness = str(pitch)
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = Sequence([measures])
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        if "PlanePositionSequence" in group:
            position = group.PlanePositionSequence[0]
            position.ImagePositionPatient = ["0", "0", f"{index * pitch:.6f}"]


def drop_positions(dataset: Dataset) -> None:
    """Removes the plane positions, so that the pitch must come from elsewhere."""
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence


def save(dataset: Dataset, folder: Path, name: str = "volume.dcm") -> Path:
    """Writes a file with preamble and meta header."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path

"""Formats beside DICOM and images: the volume of each, whose it is, and what is refused."""

from __future__ import annotations

import io
import struct
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from jepa3d.config import PrepareSettings
from jepa3d.data import SkipVolume, read_volume
from jepa3d.data.inventory import Inventory, take_inventory
from tests.jepa3d.data.oct_files import random_pixels

SPACING = (0.1, 0.004, 0.01)


def inventory_of(folder: Path) -> Inventory:
    return take_inventory(folder, folder / "out", PrepareSettings(workers=0))


def refusal(path: Path, **options) -> SkipVolume:
    with pytest.raises(SkipVolume) as caught:
        read_volume(path, **options)
    return caught.value


def chunk(name: bytes, content: bytes) -> bytes:
    return bytes([len(name)]) + name + struct.pack("<I", len(content)) + content


def topcon(pixels: np.ndarray, jpeg: bool, pattern: int = 2, person: str = "P7", eye=1) -> bytes:
    """A Topcon file of uint8 `pixels` (jpeg) or of their 257-fold as words."""
    frames, rows, columns = pixels.shape
    if jpeg:
        body = struct.pack("<BIIIIII", pattern, 0, 0, columns, rows, frames, 0)
        for frame in pixels:
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "JPEG2000")
            body += struct.pack("<I", len(file.getvalue())) + file.getvalue()
        image = chunk(b"@IMG_JPEG", body)
    else:
        words = (pixels.astype("<u2") * 257).tobytes()
        head = struct.pack("<BIIIIBI", pattern, columns, rows, 16, frames, 0, len(words))
        image = chunk(b"@IMG_SCAN_03", head + words)
    scan = struct.pack("<IIIddd", 0, 0, 0, 0.48, 1.2, 2.6) + bytes(18)
    return (
        b"FOCTFDA"
        + bytes(8)
        + chunk(b"@PATIENT_INFO_02", person.encode().ljust(32, b"\0") + b"Doe".ljust(400, b"\0"))
        + chunk(b"@HW_INFO_03", b"3DOCT-1000".ljust(100, b"\0"))
        + chunk(b"@CAPTURE_INFO_02", bytes([eye]) + bytes(117))
        + image
        + chunk(b"@PARAM_SCAN_04", scan)
        + b"\0"
    )


@pytest.mark.parametrize(("name", "jpeg"), [("scan.fda", True), ("scan.fds", False)])
def test_topcon_files_give_voxels_spacing_eye_and_person(tmp_path, name, jpeg):
    pixels = random_pixels((12, 64, 48))
    (tmp_path / name).write_bytes(topcon(pixels, jpeg))
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.pixels, pixels)
    assert volume.spacing_mm == pytest.approx((0.1, 0.0026, 0.01))
    told = {key: volume.metadata[key] for key in ("laterality", "participant", "scanner")}
    assert told == {"laterality": "L", "participant": "P7", "scanner": "topcon_3doct1000"}


def test_topcon_scans_that_are_no_raster_or_cut_are_refused(tmp_path):
    pixels, path = random_pixels((6, 32, 32)), tmp_path / "a.fds"
    for pattern in (3, 4):
        path.write_bytes(topcon(pixels, False, pattern))
        assert refusal(path).reason == "scan_pattern"
    whole = topcon(pixels, True)
    for end in range(0, len(whole) - 1, 211):
        path.write_bytes(whole[:end])
        assert refusal(path).reason in (
            "empty_file",
            "unsupported_format",
            "truncated_pixel_data",
            "missing_pixel_data",
            "unreadable_file",
        )
    path.write_bytes(topcon(pixels, False).replace(struct.pack("<I", 16), struct.pack("<I", 12), 1))
    assert "12 bits" in str(refusal(path))


def test_both_eyes_of_a_person_have_one_participant(tmp_path):
    """Or chance could put one eye into training and the other into evaluation."""
    for name, eye in (("1.fda", 0), ("2.fda", 1)):
        (tmp_path / name).write_bytes(topcon(random_pixels((6, 32, 32)), True, eye=eye))
    (tmp_path / "P9_Macular Cube 200x200_OD_sn1_cube_z.img").touch()
    (tmp_path / "P9_Macular Cube 512x128_OS_sn1_cube_z.img").touch()
    # 140: where a .vol has the patient number.
    header = b"HSF-OCT-103".ljust(140, b"\0") + b"H5"
    (tmp_path / "a.vol").write_bytes(header.ljust(2048, b"\0"))
    found = [item.participant for item in inventory_of(tmp_path).items]
    assert found == ["P7", "P7", "H5", "P9", "P9"]


def test_a_cirrus_cube_is_turned_upright_and_measured_by_its_name(tmp_path):
    pixels = random_pixels((20, 256, 200))
    path = tmp_path / "P12_Macular Cube 200x20_3-4-2015_10-11-12_OS_sn5_cube_z.img"
    pixels[:, ::-1, ::-1].tofile(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.pixels, pixels)
    assert volume.spacing_mm == pytest.approx((0.3, 2 / 256, 0.03))
    assert volume.metadata["laterality"] == "L" and volume.metadata["scanner"] == "zeiss_cirrus"


def test_a_raw_image_without_a_size_in_its_name_or_cut_is_refused(tmp_path):
    (tmp_path / "brain.img").write_bytes(bytes(1000))
    assert "size of a Zeiss cube" in str(refusal(tmp_path / "brain.img"))
    (tmp_path / "P1_512x128_cube.img").write_bytes(bytes(512 * 128 * 64 - 5))
    assert refusal(tmp_path / "P1_512x128_cube.img").reason == "truncated_pixel_data"


@pytest.mark.parametrize(
    ("others", "spacing"),
    [({"layerMaps": np.zeros((6, 48, 3))}, (0.067, 0.0045, 0.0067)), ({}, SPACING)],
)
def test_matlab_arrays_are_row_column_frame(tmp_path, others, spacing):
    pixels = random_pixels((6, 64, 48))
    scipy.io.savemat(tmp_path / "a.mat", {"images": np.moveaxis(pixels, 0, -1)} | others)
    volume = read_volume(tmp_path / "a.mat", spacing_mm=SPACING)
    np.testing.assert_array_equal(volume.pixels, pixels)
    assert volume.spacing_mm == spacing


def test_matlab_files_without_the_one_volume_say_so(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": np.zeros((6, 5, 4)), "b": np.zeros((6, 5, 4)), "n": 1})
    assert refusal(path).reason == "not_oct" and "['a', 'b', 'n']" in str(refusal(path))
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124, b" ") + b"\x00\x02IM" + bytes(512))
    assert "save(..., '-v7')" in str(refusal(path))
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124, b" ") + b"\x00\x01IM" + b"\x0e" * 64)
    assert refusal(path).reason in ("corrupt_frames", "not_oct")


def test_a_film_is_read_picture_by_picture(tmp_path):
    # Smooth pictures: the codec is lossy, and only noise would suffer much from that.
    levels = np.linspace(0, 200, 8)[:, None, None] + np.linspace(0, 50, 64)[None, :, None]
    pictures = np.broadcast_to(levels, (8, 64, 96)).astype(np.uint8)
    path = str(tmp_path / "a.avi")
    film = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for picture in pictures:
        film.write(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_GRAY2BGR))
    film.release()
    volume = read_volume(path, spacing_mm=SPACING)
    assert volume.pixels.shape == (8, 64, 96)
    assert np.abs(volume.pixels.astype(int) - pictures).mean() < 3
    (tmp_path / "b.avi").write_bytes(b"RIFF1234AVI ")
    assert refusal(tmp_path / "b.avi").reason == "corrupt_frames"


def test_nifti_axes_are_column_row_frame(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    pixels = random_pixels((6, 64, 48))
    image = nibabel.Nifti1Image(pixels.transpose(2, 1, 0), np.eye(4))
    for name in ("a.nii", "b.nii.gz"):
        image.header.set_zooms((0.01, 0.004, 0.1))
        nibabel.save(image, tmp_path / name)
        volume = read_volume(tmp_path / name, spacing_mm=(0.2, 0.003, 0.02))
        np.testing.assert_array_equal(volume.pixels, pixels)
        assert volume.spacing_mm == pytest.approx(SPACING)
    image.header.set_zooms((10.0, 4.0, 100.0))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "c.nii")
    assert read_volume(tmp_path / "c.nii").spacing_mm == pytest.approx(SPACING)
    # Steps of 1 mm are a header that nobody filled in, never a retina of 64 mm.
    nibabel.save(nibabel.Nifti1Image(pixels.transpose(2, 1, 0), np.eye(4)), tmp_path / "d.nii")
    assert read_volume(tmp_path / "d.nii", spacing_mm=SPACING).spacing_mm == SPACING


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("a.nii.gz", "nibabel", "nibabel"),
        ("a.e2e", "eyepy.io.he", "eyepy"),
        ("a.oct", "oct_converter.readers", "oct-converter"),
    ],
)
def test_a_format_whose_library_is_absent_names_it(tmp_path, monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    (tmp_path / name).write_bytes(b"something")
    assert refusal(tmp_path / name).reason == "missing_decoder"
    assert f"{package} is not installed; pip install" in str(refusal(tmp_path / name))
    assert [item.path for item in inventory_of(tmp_path).items] == [name]


class Series:
    """A series as eyepy has it."""

    def __init__(self, number: int, pixels: np.ndarray, eye: str):
        self.id, self._pixels, self._eye = number, pixels, eye

    def get_volume(self):
        if self._eye == "circle":
            raise ValueError("The EyeVolume object does not support scan pattern 2")
        return types.SimpleNamespace(data=self._pixels, meta={"laterality": self._eye})


def test_each_series_of_an_e2e_file_is_a_volume_of_its_person(tmp_path, monkeypatch):
    right, left = random_pixels((6, 64, 48)), random_pixels((6, 64, 48), 1)

    class Reader:
        def __init__(self, path):
            self.series = [Series(3, right, "R"), Series(8, left, "OS"), Series(9, left, "circle")]
            data = types.SimpleNamespace(patient_id="E4\0")
            folders = {9: [types.SimpleNamespace(data=data)]}
            self.patients = [types.SimpleNamespace(id=1, folders=folders)]

        def __enter__(self):
            return self

        def __exit__(self, *unused):
            pass

    library = types.SimpleNamespace(HeE2eReader=Reader)
    construct = types.SimpleNamespace(ConstructError=type("ConstructError", (Exception,), {}))
    monkeypatch.setitem(sys.modules, "eyepy", types.ModuleType("eyepy"))
    monkeypatch.setitem(sys.modules, "eyepy.io", types.ModuleType("eyepy.io"))
    monkeypatch.setitem(sys.modules, "eyepy.io.he", library)
    monkeypatch.setitem(sys.modules, "construct", construct)
    path = tmp_path / "a.E2E"
    path.touch()
    items = inventory_of(tmp_path).items
    assert [item.path for item in items] == ["a.E2E#3", "a.E2E#8", "a.E2E#9"]
    assert {item.participant for item in items} == {"E4"}
    for part, pixels, eye in (("3", right, "R"), ("8", left, "L")):
        volume = read_volume(path, part=part)
        np.testing.assert_array_equal(volume.pixels, pixels)
        assert volume.metadata["laterality"] == eye
    assert refusal(path).reason == "mixed_volumes"
    assert refusal(path, part="9").reason == "scan_pattern"

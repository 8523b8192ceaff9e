"""Heidelberg raw files, arrays and image folders."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from jepa3d.data import SkipVolume, read_volume
from jepa3d.data.heidelberg_vol import read_frames
from jepa3d.data.intensity import to_uint8
from jepa3d.data.scanners import (
    pattern_from_name,
    protocol_spacing,
    scanner_from_path,
    scanner_name,
)
from tests.jepa3d.data.oct_files import random_pixels


def write_vol(path, values, pattern=3, columns=None):
    frames, rows, width = values.shape
    head = struct.pack(
        "<12siiidddiiddid4sqii16s",
        b"HSF-OCT-103\0", columns or width, frames, rows, 0.0116, 0.12, 0.00387,
        8, 8, 0.01, 0.01, 30, 0.0, b"OS\0\0", 0, pattern, 256, b"",
    )  # fmt: skip
    body = b"".join(b"\0" * 256 + frame.astype("<f4").tobytes() for frame in values)
    path.write_bytes(head.ljust(2048, b"\0") + b"\0" * 64 + body)
    return path


def test_vol_volume_is_the_fourth_root_with_invalid_pixels_dark(tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (5, 20, 30)).astype(np.float32)
    values[2, 3] = np.finfo(np.float32).max
    volume = read_volume(write_vol(tmp_path / "a.vol", values))
    expected = np.where(values > 1, 0, 255 * np.minimum(values, 1) ** 0.25)
    np.testing.assert_allclose(volume.pixels, expected, atol=0.51)
    np.testing.assert_allclose(volume.spacing_mm, (0.12, 0.00387, 0.0116))
    assert volume.metadata["laterality"] == "L"


@pytest.mark.parametrize("pattern", [1, 2, 5])
def test_vol_of_other_patterns_is_skipped(tmp_path, pattern):
    path = write_vol(tmp_path / "a.vol", np.ones((5, 20, 30)) / 2, pattern)
    with pytest.raises(SkipVolume) as caught:
        read_volume(path)
    assert caught.value.reason == "scan_pattern"


def test_vol_that_declares_more_than_it_holds_is_truncated(tmp_path):
    path = write_vol(tmp_path / "a.vol", np.ones((5, 20, 30)) / 2, columns=60)
    with pytest.raises(SkipVolume) as caught:
        read_volume(path)
    assert caught.value.reason == "truncated_pixel_data"


def test_real_vol_line_scan_looks_like_its_dicom_twin(data_root):
    import pydicom

    native = data_root / "oct" / "native" / "heidelberg_vol" / "spectralis_linescan.vol"
    twin = next((data_root / "oct" / "retinal_oct").rglob("9004_*.dcm"))
    head = native.read_bytes()[:2048]
    slo = struct.unpack_from("<ii", head, 48)
    (frame_header,) = struct.unpack_from("<i", head, 100)
    ours = read_frames(native, 2048 + slo[0] * slo[1], frame_header, (1, 496, 768))[0]
    theirs = pydicom.dcmread(twin).pixel_array.astype(float)
    rank = np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]
    assert rank > 0.7


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_arrays_keep_their_bytes_and_spacing(tmp_path, name):
    pixels = random_pixels()
    if name.endswith("npz"):
        np.savez(tmp_path / name, volume=pixels, spacing_mm=(0.05, 0.004, 0.02))
    else:
        np.save(tmp_path / name, pixels[..., None])
    volume = read_volume(tmp_path / name, spacing_mm=(0.1, 0.005, 0.01))
    np.testing.assert_array_equal(volume.pixels, pixels)
    expected = (0.05, 0.004, 0.02) if name.endswith("npz") else (0.1, 0.005, 0.01)
    assert volume.spacing_mm == expected


def test_images_are_sorted_by_number(tmp_path):
    pixels = random_pixels((12, 20, 30))
    for index, frame in enumerate(pixels, 1):
        Image.fromarray(frame).save(tmp_path / f"{index}.bmp")
    np.testing.assert_array_equal(read_volume(tmp_path).pixels, pixels)


def test_sixteen_bit_images_are_read(tmp_path):
    pixels = random_pixels((3, 20, 30))
    for index, frame in enumerate(pixels, 1):
        Image.fromarray(frame.astype(np.uint16) * 257).save(tmp_path / f"{index}.png")
    np.testing.assert_array_equal(read_volume(tmp_path).pixels, pixels)


def test_an_image_of_another_size_or_damaged_is_refused(tmp_path):
    for index in range(3):
        Image.fromarray(random_pixels()[index]).save(tmp_path / f"{index}.png")
    Image.fromarray(random_pixels((3, 9, 9))[0]).save(tmp_path / "3.png")
    with pytest.raises(SkipVolume) as caught:
        read_volume(tmp_path)
    assert caught.value.reason == "mixed_frame_sizes"
    (tmp_path / "3.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    with pytest.raises(SkipVolume) as caught:
        read_volume(tmp_path)
    assert caught.value.reason == "corrupt_frames"


def test_floats_with_holes_become_bytes(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 30, 30)).astype(np.float32)
    values[0, 0, 0] = np.nan
    values[1, 1, 1] = np.inf
    pixels, rule = to_uint8(values)
    assert rule == "percentile" and pixels[0, 0, 0] == 0
    assert pixels.min() == 0 and pixels.max() == 255


def test_scanners_are_named_by_folder_tags_and_words():
    assert scanner_name("Heidelberg Engineering", "Spectralis") == "heidelberg_spectralis"
    assert scanner_name("TOPCON", "3D OCT-1000") == "topcon_3doct1000"
    assert scanner_name("New Maker", "X 1") == "new_maker_x_1"
    assert scanner_name("", "") == "unknown"
    assert scanner_from_path("/d/structural_oct/brand_new/7/x.dcm") == "brand_new"
    assert scanner_from_path("/d/cirrus_cubes/x.npy") == "zeiss_cirrus"


def test_protocols_give_field_over_frames_and_patterns():
    assert protocol_spacing("cirrus_mac_oct", 128, 512) == pytest.approx(
        (6 / 128, 0.00195, 6 / 512)
    )
    assert protocol_spacing("triton 3d radial oct", 256, 512)[0] == pytest.approx(9 / 256)
    assert protocol_spacing("holiday", 1, 1) is None
    assert pattern_from_name("triton_3d_radial_oct") == ""
    assert pattern_from_name("disc radial") == "radial scan"
    assert pattern_from_name("baseline visit") == ""

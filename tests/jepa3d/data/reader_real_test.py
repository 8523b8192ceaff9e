"""Every real sample file gives the volume, or the reason, that its description promises."""

from __future__ import annotations

import numpy as np
import pytest

from jepa3d.data import SkipVolume, read_volume

IDENTICAL = (
    "deflated_explicit_le",
    "explicit_le",
    "implicit_le",
    "jpeg2000_lossless",
    "jpeg_lossless_sv1",
    "jpegls_lossless",
    "rle",
    "sixteen_bit_explicit_le",
    "sixteen_bit_jpeg2000_lossless",
    "spacing_none",
    "spacing_per_frame",
    "spacing_top_level",
)
REASONS = {
    "broken/constant_volume.dcm": "constant_volume",
    "broken/empty_file.dcm": "empty_file",
    "broken/fewer_frames_than_header.dcm": "frame_count_mismatch",
    "broken/missing_pixeldata.dcm": "missing_pixel_data",
    "broken/no_preamble.dcm": "missing_preamble",
    "broken/not_dicom.dcm": "not_dicom",
    "broken/png_named.dcm": "not_dicom",
    "broken/truncated_in_header.dcm": "truncated_header",
    "broken/truncated_uncompressed.dcm": "truncated_pixel_data",
    "broken/unknown_transfer_syntax.dcm": "unknown_transfer_syntax",
    "broken/zero_length_pixeldata.dcm": "zero_length_pixel_data",
    "general_multiframe/bad_sequence.dcm": "not_oct",
    "general_multiframe/emri_small_RLE.dcm": "not_oct",
    "general_multiframe/emri_small_big_endian.dcm": "not_oct",
    "native/heidelberg_vol/spectralis_circle.vol": "scan_pattern",
    "native/heidelberg_vol/spectralis_linescan.vol": "scan_pattern",
    "single_frame_series/00_254497.dcm": "too_few_frames",
    "does_not_exist.dcm": "missing_file",
}


@pytest.fixture(scope="module")
def oct_root(data_root):
    root = data_root / "oct"
    if not root.is_dir():
        pytest.skip("no OCT sample data")
    return root


@pytest.fixture(scope="module")
def reference(oct_root):
    with np.load(oct_root / "variants_reference.npz") as arrays:
        return arrays["volume"], arrays["spacing_mm"]


@pytest.mark.parametrize("name", IDENTICAL)
def test_lossless_encodings_give_the_same_bytes(oct_root, reference, name):
    volume = read_volume(oct_root / "variants" / f"{name}.dcm")
    np.testing.assert_array_equal(volume.pixels, reference[0])
    if name != "spacing_none":
        np.testing.assert_allclose(volume.spacing_mm, reference[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "decibel"), [("jpeg2000_lossy", 34.8), ("jpeg_baseline_lossy", 38.5)]
)
def test_lossy_encodings_come_as_close_as_their_codec_allows(oct_root, reference, name, decibel):
    pixels = read_volume(oct_root / "variants" / f"{name}.dcm").pixels
    error = np.mean((pixels.astype(float) - reference[0]) ** 2)
    assert 10 * np.log10(255**2 / error) == pytest.approx(decibel, abs=0.1)


def test_spacing_source_is_recorded(oct_root):
    sources = {
        name: read_volume(oct_root / "variants" / f"{name}.dcm").metadata["spacing_source"]
        for name in ("explicit_le", "spacing_per_frame", "spacing_top_level", "spacing_none")
    }
    assert sources["explicit_le"]["in_plane"] == "shared_functional_groups"
    assert sources["spacing_per_frame"]["in_plane"] == "per_frame_functional_groups"
    assert sources["spacing_top_level"] == {"in_plane": "top_level", "pitch": "slice_thickness"}
    assert sources["spacing_none"] == {"in_plane": "scanner_default", "pitch": "scanner_default"}


def test_single_frame_series_is_sorted_in_space(oct_root, reference):
    volume = read_volume(oct_root / "single_frame_series")
    np.testing.assert_array_equal(volume.pixels, reference[0])
    np.testing.assert_allclose(volume.spacing_mm, reference[1], rtol=1e-6)


@pytest.mark.parametrize(("name", "reason"), REASONS.items())
def test_files_without_a_volume_say_why(oct_root, name, reason):
    with pytest.raises(SkipVolume) as caught:
        read_volume(oct_root / name)
    assert caught.value.reason == reason
    assert len(caught.value.detail) > 5


def test_photograph_is_named_as_such(oct_root):
    (path,) = (oct_root / "retinal_photography").rglob("*.dcm")
    with pytest.raises(SkipVolume, match="Ophthalmic Photography 8 Bit") as caught:
        read_volume(path)
    assert caught.value.reason == "not_oct" and caught.value.reason.is_exclusion


def test_one_corrupt_frame_of_eight_is_interpolated_and_noted(oct_root):
    path = oct_root / "broken" / "one_corrupt_frame_jpeg2000.dcm"
    volume = read_volume(path)
    assert volume.metadata["interpolated_frames"] == [4]
    blend = 0.5 * (volume.pixels[3].astype(float) + volume.pixels[5])
    np.testing.assert_allclose(volume.pixels[4], blend, atol=0.5)
    with pytest.raises(SkipVolume) as caught:
        read_volume(path, corrupt_fraction=0.1)
    assert caught.value.reason == "corrupt_frames"


def test_absent_tags_are_defaulted_and_noted(oct_root):
    nameless = read_volume(oct_root / "broken" / "no_manufacturer.dcm")
    assert nameless.metadata["scanner"] == "unknown"
    countless = read_volume(oct_root / "broken" / "no_number_of_frames.dcm")
    assert countless.pixels.shape == (8, 128, 128) and countless.metadata["frame_count"]
    np.testing.assert_array_equal(nameless.pixels, countless.pixels)


def test_dicom_volume_equals_the_images_that_it_was_made_of(oct_root):
    (path,) = (oct_root / "retinal_oct" / "structural_oct").rglob("9002_*.dcm")
    volume = read_volume(path)
    images = read_volume(oct_root / "native" / "hcms_spectralis" / "ms01")
    np.testing.assert_array_equal(volume.pixels, images.pixels)
    assert volume.metadata["scanner"] == images.metadata["scanner"] == "heidelberg_spectralis"
    np.testing.assert_allclose(volume.spacing_mm, (0.1236, 0.0039, 0.0058))


def test_images_without_a_number_are_no_b_scans(oct_root):
    volume = read_volume(oct_root / "native" / "bioptigen_sdoct" / "subject09")
    assert volume.metadata["images_left_out"] == ["average.tif", "test.tif"]
    assert volume.pixels.shape == (4, 401, 900)

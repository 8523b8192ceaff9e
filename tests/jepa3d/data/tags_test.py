"""Tags that decide what a voxel shows, where it lies and whose it is."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from jepa3d.data import SkipVolume, read_volume
from jepa3d.data.laterality import eye_of_name, eye_of_word
from tests.jepa3d.data.oct_files import drop_positions, make_dataset, random_pixels, save


def sixteen_bit(words: np.ndarray, stored_bits=16, high_bit=15) -> Dataset:
    dataset = make_dataset(random_pixels(words.shape))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, stored_bits, high_bit
    dataset.PixelData = words.astype("<u2").tobytes()
    return dataset


def localizer(dataset: Dataset, lines: np.ndarray) -> None:
    """Scan lines of the stored frames in the fundus image."""
    items = []
    for line in lines:
        item = Dataset()
        item.ReferenceCoordinates = [float(value) for value in line]
        items.append(item)
    dataset.OphthalmicFrameLocationSequence = Sequence(items)


def shuffled_with_localizer(pixels: np.ndarray, positions: bool) -> Dataset:
    """Frames stored in another order than in space, 4 fundus pixels apart, each 0.005 mm."""
    order = np.random.default_rng(3).permutation(len(pixels))
    dataset = make_dataset(pixels)
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    dataset.PerFrameFunctionalGroupsSequence = Sequence([groups[i] for i in order])
    dataset.PixelData = pixels[order].tobytes()
    if not positions:
        drop_positions(dataset)
        for group in dataset.PerFrameFunctionalGroupsSequence:
            del group.FrameContentSequence
    localizer(dataset, np.asarray([(100 + 4 * k, 50, 100 + 4 * k, 146) for k in order]))
    return dataset


@pytest.mark.parametrize("positions", [True, False])
def test_frames_stored_in_any_order_have_the_pitch_of_their_neighbors_in_space(tmp_path, positions):
    pixels = random_pixels((12, 64, 48))
    volume = read_volume(save(shuffled_with_localizer(pixels, positions), tmp_path))
    assert volume.spacing_mm[0] == pytest.approx(0.02)
    assert volume.metadata["spacing_source"]["pitch"] == "localizer_coordinates"
    same = [np.array_equal(volume.pixels, order) for order in (pixels, pixels[::-1])]
    assert any(same) and (same[0] or not positions)


def test_scan_lines_that_run_up_the_fundus_do_not_turn_the_volume_around(tmp_path):
    pixels = random_pixels()
    dataset = make_dataset(pixels)
    drop_positions(dataset)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.FrameContentSequence
    localizer(dataset, np.asarray([(100 - 4 * k, 50, 100 - 4 * k, 146) for k in range(6)]))
    np.testing.assert_array_equal(read_volume(save(dataset, tmp_path)).pixels, pixels)


def test_padding_of_sixteen_bit_words_is_dark_and_does_not_flatten_the_tissue(tmp_path):
    tissue = np.random.default_rng(0).integers(300, 4000, (6, 64, 48))
    padded = np.zeros(tissue.shape, bool)
    padded[:, :20] = True
    dataset = sixteen_bit(np.where(padded, 60000, tissue))
    dataset.add_new("PixelPaddingValue", "US", 60000)
    pixels = read_volume(save(dataset, tmp_path)).pixels
    low, high = np.quantile(tissue[~padded], (0.001, 0.999))
    expected = np.clip((tissue - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(pixels[~padded], expected[~padded], atol=0.51)
    assert not pixels[padded].any()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_dark_whichever_way_gray_values_run(tmp_path, photometric):
    pixels = random_pixels() // 2 + 10
    dataset = make_dataset(np.where(np.arange(48) < 10, np.uint8(255), pixels))
    dataset.PhotometricInterpretation = photometric
    dataset.add_new("PixelPaddingValue", "US", 255)
    volume = read_volume(save(dataset, tmp_path))
    assert not volume.pixels[:, :, :10].any()
    tissue = pixels[:, :, 10:]
    shown = 255 - tissue if photometric == "MONOCHROME1" else tissue
    np.testing.assert_array_equal(volume.pixels[:, :, 10:], shown)
    assert volume.metadata["padding_fraction"] == pytest.approx(10 / 48, abs=1e-6)


def test_a_range_of_padding_values_includes_both_ends(tmp_path):
    pixels = random_pixels()
    dataset = make_dataset(pixels)
    dataset.add_new("PixelPaddingValue", "US", 250)
    dataset.add_new("PixelPaddingRangeLimit", "US", 240)
    padded = (pixels >= 240) & (pixels <= 250)
    expected = np.where(padded, 0, pixels)
    np.testing.assert_array_equal(read_volume(save(dataset, tmp_path)).pixels, expected)


def test_a_signed_padding_value_written_as_unsigned_is_understood(tmp_path):
    words = np.random.default_rng(0).integers(-500, 4000, (6, 64, 48)).astype(np.int16)
    words[:, :20] = -2000
    dataset = sixteen_bit(words)
    dataset.PixelRepresentation = 1
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    pixels = read_volume(save(dataset, tmp_path)).pixels
    assert not pixels[:, :20].any() and abs(pixels[:, 20:].mean() - 127.5) < 3


@pytest.mark.parametrize("compressed", [False, True])
def test_words_in_the_high_bits_are_shifted_down(tmp_path, compressed):
    values = np.random.default_rng(0).integers(0, 4096, (6, 64, 48), dtype=np.uint16)
    plain = read_volume(save(sixteen_bit(values, 12, 11), tmp_path)).pixels
    overlay = np.random.default_rng(1).integers(0, 16, values.shape, dtype=np.uint16)
    dataset = sixteen_bit(values << 4 | overlay, 12, 15)
    if compressed:
        dataset.compress(RLELossless, generate_instance_uid=False)
    np.testing.assert_array_equal(read_volume(save(dataset, tmp_path)).pixels, plain)


def without_spacing(dataset: Dataset) -> Dataset:
    drop_positions(dataset)
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    return dataset


def test_resolutions_in_micrometers_stand_in_for_spacing_that_nothing_else_gives(tmp_path):
    dataset = without_spacing(make_dataset(random_pixels()))
    dataset.DepthSpatialResolution = 2.5
    dataset.AlongScanSpatialResolution = 12.0
    dataset.AcrossScanSpatialResolution = 50.0
    volume = read_volume(save(dataset, tmp_path))
    assert volume.spacing_mm == pytest.approx((0.05, 0.0025, 0.012))
    assert set(volume.metadata["spacing_source"].values()) == {"opt_resolution"}


def test_pixel_spacing_comes_before_the_resolution(tmp_path):
    dataset = make_dataset(random_pixels())
    dataset.DepthSpatialResolution, dataset.AlongScanSpatialResolution = 7.0, 14.0
    assert read_volume(save(dataset, tmp_path)).spacing_mm[1:] == pytest.approx((0.004, 0.01))


def test_a_resolution_that_no_pixel_has_is_not_taken(tmp_path):
    dataset = without_spacing(make_dataset(random_pixels()))
    dataset.DepthSpatialResolution = 2500.0  # nanometers, for instance
    dataset.AlongScanSpatialResolution, dataset.AcrossScanSpatialResolution = 12.0, 0.0
    sources = read_volume(save(dataset, tmp_path)).metadata["spacing_source"]
    assert set(sources.values()) == {"scanner_default"}


def modifier(code: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodeMeaning = code, meaning
    return Sequence([item])


@pytest.mark.parametrize(
    ("code", "meaning", "eye"),
    [
        ("7771000", "", "L"),
        ("24028007", "", "R"),
        ("G-A101", "", "L"),
        ("", "Left", "L"),
        ("51440002", "Right and left", ""),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_the_eye_in_the_modifier_of_the_region(tmp_path, code, meaning, eye, inside):
    dataset = make_dataset(random_pixels(), laterality="")
    region = Dataset()
    holder = region if inside else dataset
    holder.AnatomicRegionModifierSequence = modifier(code, meaning)
    if inside:
        anatomy = Dataset()
        anatomy.AnatomicRegionSequence = Sequence([region])
        dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = Sequence([anatomy])
    assert read_volume(save(dataset, tmp_path)).metadata["laterality"] == eye


@pytest.mark.parametrize(
    ("word", "eye"),
    [("R", "R"), ("OD", "R"), ("os", "L"), ("Left", "L"), ("OU", ""), ("B", ""), ("", "")],
)
def test_words_for_an_eye(word, eye):
    assert eye_of_word(word) == eye


@pytest.mark.parametrize(
    ("name", "eye"),
    [
        ("1001_OD_12", "R"),
        ("scan-os-3", "L"),
        ("a_l_2", "L"),
        ("r2_model", ""),
        ("od_os", ""),
        ("holder", ""),
    ],
)
def test_eyes_in_names_stand_between_separators(name, eye):
    assert eye_of_name(name) == eye


def test_an_image_laterality_of_os_is_the_left_eye(tmp_path):
    dataset = make_dataset(random_pixels(), laterality="OS")
    assert read_volume(save(dataset, tmp_path)).metadata["laterality"] == "L"


def test_frames_of_both_eyes_in_one_file_are_refused(tmp_path):
    dataset = make_dataset(random_pixels(), laterality="")
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        anatomy = Dataset()
        anatomy.FrameLaterality = "R" if index < 3 else "L"
        group.FrameAnatomySequence = Sequence([anatomy])
    with pytest.raises(SkipVolume, match="both eyes") as caught:
        read_volume(save(dataset, tmp_path))
    assert caught.value.reason == "mixed_volumes"


def test_a_whole_file_without_its_class_is_not_called_truncated(tmp_path):
    dataset = make_dataset(random_pixels())
    del dataset.SOPClassUID, dataset.file_meta.MediaStorageSOPClassUID
    dataset.preamble = b"\0" * 128
    path = tmp_path / "volume.dcm"
    dataset.save_as(path, enforce_file_format=False)
    with pytest.raises(SkipVolume, match="SOPClassUID is absent") as caught:
        read_volume(path)
    assert caught.value.reason == "bad_header"

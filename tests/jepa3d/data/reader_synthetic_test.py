"""Rules of the DICOM reader, each shown on a file made for it."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)

from jepa3d.data import SkipVolume, read_volume
from jepa3d.synthetic import SCANNERS, Scanner
from tests.jepa3d.data.oct_files import (
    PLAIN,
    drop_positions,
    make_dataset,
    random_pixels,
    save,
    set_spacing,
)


def skip_reason(path, **options) -> str:
    with pytest.raises(SkipVolume) as caught:
        read_volume(path, **options)
    return caught.value.reason.value


def test_frames_are_sorted_by_plane_position(tmp_path):
    pixels = random_pixels()
    dataset = make_dataset(pixels)
    order = np.random.default_rng(1).permutation(len(pixels))
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    dataset.PerFrameFunctionalGroupsSequence = Sequence([groups[i] for i in order])
    dataset.PixelData = pixels[order].tobytes()
    volume = read_volume(save(dataset, tmp_path))
    np.testing.assert_array_equal(volume.pixels, pixels)
    assert volume.metadata["frame_order"] == "plane_position"


def test_monochrome1_is_inverted(tmp_path):
    pixels = random_pixels()
    dataset = make_dataset(255 - pixels)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_array_equal(read_volume(save(dataset, tmp_path)).pixels, pixels)


def sixteen_bit(dataset: Dataset, words: np.ndarray) -> Dataset:
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelData = words.astype("<u2").tobytes()
    return dataset


def test_widened_words_give_the_bytes_back_whatever_their_rescale(tmp_path):
    pixels = random_pixels()
    dataset = sixteen_bit(make_dataset(pixels), pixels.astype(np.uint16) * 257)
    dataset.RescaleSlope, dataset.RescaleIntercept = "0.00389105", "-10"
    np.testing.assert_array_equal(read_volume(save(dataset, tmp_path)).pixels, pixels)
    dataset.RescaleSlope = "-1"
    np.testing.assert_array_equal(read_volume(save(dataset, tmp_path)).pixels, 255 - pixels)


def test_true_sixteen_bit_goes_through_robust_percentiles(tmp_path):
    words = np.random.default_rng(0).integers(300, 4000, (6, 64, 64))
    words[0, 0, 0] = 65535  # one glint must not darken the volume
    volume = read_volume(
        save(sixteen_bit(make_dataset(random_pixels((6, 64, 64))), words), tmp_path)
    )
    low, high = np.quantile(words, (0.001, 0.999))
    expected = np.clip((words - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(volume.pixels, expected, atol=0.51)
    assert volume.metadata["intensity"] == "percentile"


def test_rescale_that_differs_by_frame_is_applied(tmp_path):
    pixels = random_pixels((6, 64, 48)) // 2
    dataset = make_dataset(pixels)
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        transformation = Dataset()
        transformation.RescaleSlope = "1" if index % 2 == 0 else "2"
        transformation.RescaleIntercept = "0"
        group.PixelValueTransformationSequence = Sequence([transformation])
    means = read_volume(save(dataset, tmp_path)).pixels.mean(axis=(1, 2))
    assert np.all(means[1::2] > 1.7 * means[0::2])


def test_big_endian_words_are_read(tmp_path):
    words = np.random.default_rng(0).integers(0, 65535, (6, 64, 48), dtype=np.uint16)
    little = read_volume(save(sixteen_bit(make_dataset(random_pixels()), words), tmp_path)).pixels
    dataset = sixteen_bit(make_dataset(random_pixels()), words)
    dataset["PixelData"].VR = "OW"
    dataset.PixelData = words.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "big.dcm"
    dataset.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(path).pixels, little)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_cut_compressed_stream_is_truncated_not_missing(tmp_path, syntax):
    dataset = make_dataset(random_pixels())
    dataset.compress(syntax, generate_instance_uid=False)
    path = save(dataset, tmp_path)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    assert skip_reason(path) == "truncated_pixel_data"


def test_relabeled_stream_is_never_taken_for_raw_pixels(tmp_path):
    dataset = make_dataset(random_pixels((6, 64, 64)))
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    assert skip_reason(save(dataset, tmp_path)) in ("corrupt_frames", "truncated_pixel_data")


def test_wrong_transfer_syntax_is_decoded_by_its_signature(tmp_path):
    pixels = random_pixels()
    dataset = make_dataset(pixels)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    volume = read_volume(save(dataset, tmp_path))
    np.testing.assert_array_equal(volume.pixels, pixels)
    assert "jpeg2000" in volume.metadata["transfer_syntax_mismatch"]


def scrambled(scanner) -> Dataset:
    dataset = make_dataset(random_pixels(), scanner)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    noise = np.random.default_rng(0)
    dataset.PixelData = encapsulate([noise.bytes(800) for _ in range(6)])
    return dataset


def test_obfuscated_zeiss_export_is_told_from_plain_damage(tmp_path):
    zeiss = Scanner("", "Carl Zeiss Meditec", "CIRRUS", "cube", 1, 0, "shared")
    assert skip_reason(save(scrambled(zeiss), tmp_path)) == "zeiss_obfuscated"
    assert skip_reason(save(scrambled(PLAIN), tmp_path)) == "corrupt_frames"


def test_more_stored_frames_than_declared(tmp_path):
    dataset = make_dataset(random_pixels())
    dataset.NumberOfFrames = 4
    volume = read_volume(save(dataset, tmp_path))
    assert len(volume.pixels) == 6 and volume.metadata["frame_count"]  # one group per stored frame
    del dataset.PerFrameFunctionalGroupsSequence
    assert len(read_volume(save(dataset, tmp_path)).pixels) == 4


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        ("Rows", None, "bad_header"),
        ("Rows", 0, "bad_header"),
        ("NumberOfFrames", 10**9, "too_large"),
        ("NumberOfFrames", 5000, "truncated_pixel_data"),
        ("NumberOfFrames", -3, "bad_header"),
        ("BitsAllocated", 32, "unsupported_pixels"),
        ("SamplesPerPixel", 3, "unsupported_pixels"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.77.1.5.7", "not_oct"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.4", "not_oct"),
    ],
)
def test_header_values_that_cannot_be(tmp_path, tag, value, reason):
    dataset = make_dataset(random_pixels())
    if value is None:
        delattr(dataset, tag)
    else:
        setattr(dataset, tag, value)
    reasons = (reason, "frame_count_mismatch") if value == 5000 else (reason,)
    assert skip_reason(save(dataset, tmp_path)) in reasons


def test_obsolete_en_face_class_is_named(tmp_path):
    dataset = make_dataset(random_pixels())
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.5.7"
    with pytest.raises(SkipVolume, match="En Face"):
        read_volume(save(dataset, tmp_path))


def test_spacing_of_one_millimeter_is_refused(tmp_path):
    dataset = make_dataset(random_pixels())
    set_spacing(dataset, (1.0, 1.0, 1.0))
    assert skip_reason(save(dataset, tmp_path)) == "spacing_out_of_range"


def test_zero_spacing_counts_as_absent(tmp_path):
    dataset = make_dataset(random_pixels())
    set_spacing(dataset, (0.0, 0.0, 0.0))
    volume = read_volume(save(dataset, tmp_path))
    assert volume.metadata["spacing_source"] == {
        "in_plane": "scanner_default",
        "pitch": "scanner_default",
    }


def test_cirrus_slice_thickness_that_repeats_the_lateral_spacing_is_not_the_pitch(tmp_path):
    dataset = make_dataset(random_pixels((128, 8, 32)), SCANNERS[3])
    set_spacing(dataset, (0.0117, 0.00195, 0.0117))
    volume = read_volume(save(dataset, tmp_path))
    assert volume.spacing_mm[0] == pytest.approx(6 / 128)
    assert volume.metadata["spacing_source"]["pitch"] != "slice_thickness"


def test_topcon_slice_thickness_is_the_pitch(tmp_path):
    dataset = make_dataset(random_pixels(), SCANNERS[1])
    dataset.decompress(generate_instance_uid=False)
    set_spacing(dataset, (0.047, 0.0026, 0.0117))
    drop_positions(dataset)
    volume = read_volume(save(dataset, tmp_path))
    assert volume.spacing_mm[0] == pytest.approx(0.047)
    assert volume.metadata["spacing_source"]["pitch"] == "slice_thickness"


def localizer_lines(dataset: Dataset, lines) -> Dataset:
    drop_positions(dataset)
    items = []
    for line in lines:
        item = Dataset()
        item.ReferenceCoordinates = [float(v) for v in line]
        items.append(item)
    dataset.OphthalmicFrameLocationSequence = Sequence(items)
    return dataset


def test_pitch_from_scan_lines_on_the_fundus_image_comes_first(tmp_path):
    # 48 columns of 0.01 mm are 0.48 mm, drawn 96 pixels long: 0.005 mm per pixel, 4 pixels apart.
    dataset = make_dataset(random_pixels())
    lines = [(100 + 4 * k, 50, 100 + 4 * k, 146) for k in range(6)]
    volume = read_volume(save(localizer_lines(dataset, lines), tmp_path))
    assert volume.spacing_mm[0] == pytest.approx(0.02)
    assert volume.metadata["spacing_source"]["pitch"] == "localizer_coordinates"


def test_radial_and_circle_scans_are_no_raster(tmp_path):
    angles = np.linspace(0, np.pi, 6, endpoint=False)
    ends = np.stack([np.sin(angles), np.cos(angles)], axis=1) * 50
    radial = [(100 - a, 100 - b, 100 + a, 100 + b) for a, b in ends]
    path = save(localizer_lines(make_dataset(random_pixels()), radial), tmp_path)
    assert skip_reason(path) == "scan_pattern"
    circle = [(100, 100, 100, 100)] * 6
    path = save(localizer_lines(make_dataset(random_pixels()), circle), tmp_path)
    assert skip_reason(path) == "scan_pattern"
    directions = np.stack([np.cos(angles), 0 * angles, np.sin(angles)], axis=1)
    path = save(make_dataset(random_pixels(), directions=directions), tmp_path)
    assert skip_reason(path) == "scan_pattern"
    dataset = make_dataset(random_pixels())
    dataset.ProtocolName = "spectralis onh rc hr oct"
    assert skip_reason(save(dataset, tmp_path)) == "scan_pattern"


def test_lateral_spacing_that_varies_by_frame_is_a_mixed_scan(tmp_path):
    dataset = make_dataset(random_pixels())
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        measures = Dataset()
        measures.PixelSpacing = ["0.004", "0.01" if index < 4 else "0.02"]
        group.PixelMeasuresSequence = Sequence([measures])
    assert skip_reason(save(dataset, tmp_path)) == "scan_pattern"


def test_laterality_falls_back_to_frame_anatomy_then_file_name(tmp_path):
    dataset = make_dataset(random_pixels(), laterality="")
    path = save(dataset, tmp_path, "1001_macula_l_2.25.7.dcm")
    assert read_volume(path).metadata["laterality"] == "L"
    anatomy = Dataset()
    anatomy.FrameLaterality = "R"
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = Sequence([anatomy])
    assert read_volume(save(dataset, tmp_path, path.name)).metadata["laterality"] == "R"


def test_series_of_two_sizes_is_refused(tmp_path):
    for index, rows in enumerate((32, 40)):
        save(make_dataset(random_pixels((1, rows, 48))), tmp_path, f"{index}.dcm")
    assert skip_reason(tmp_path) == "mixed_frame_sizes"

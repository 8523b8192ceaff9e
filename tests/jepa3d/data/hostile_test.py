"""Damaged files end in a volume or a named reason: no other exception, no big memory."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
import zipfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from jepa3d.data import SkipVolume, Volume, read_volume
from tests.jepa3d.data.oct_files import make_dataset, random_pixels, save

SYNTAXES = (None, RLELossless, JPEG2000Lossless, JPEGLSLossless)

# A damage: where (as a share of the file, or in the first 4 kB), what, and how.
damages = st.lists(
    st.tuples(
        st.sampled_from(["cut", "flip", "flip_header", "delete_header", "fill_header"]),
        st.floats(0, 1),
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=4,
)


def damage(data: bytes, operations) -> bytes:
    result = bytearray(data)
    for kind, place, value in operations:
        if not result:
            break
        reach = min(len(result), 4000) if kind.endswith("header") else len(result)
        at = min(int(place * reach), len(result) - 1)
        if kind == "cut":
            del result[at:]
        elif kind.startswith("flip"):
            result[at] ^= value
        elif kind == "delete_header":
            del result[at : at + value % 16 + 1]
        else:
            result[at : at + 4] = bytes([value]) * len(result[at : at + 4])
    return bytes(result)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    files = []
    for number, syntax in enumerate(SYNTAXES):
        dataset = make_dataset(random_pixels((4, 64, 64)))
        if syntax is not None:
            dataset.compress(syntax, generate_instance_uid=False)
        files.append(save(dataset, folder, f"{number}.dcm").read_bytes())
    return files


@hypothesis.settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(which=st.integers(0, len(SYNTAXES) - 1), operations=damages)
def test_damaged_dicom_is_a_volume_or_a_reason(originals, tmp_path, which, operations):
    path = tmp_path / "damaged.dcm"
    path.write_bytes(damage(originals[which], operations))
    try:
        volume = read_volume(path)
    except SkipVolume as skip:
        assert skip.reason and skip.detail
    else:
        assert isinstance(volume, Volume) and volume.pixels.dtype == np.uint8


def array_file(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@hypothesis.settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(suffix=st.sampled_from([".npy", ".npz", ".vol", ".dcm"]), operations=damages)
def test_damaged_arrays_are_a_volume_or_a_reason(tmp_path, suffix, operations):
    data = array_file(random_pixels((4, 16, 16)))
    if suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, volume=random_pixels((4, 16, 16)))
        data = buffer.getvalue()
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(damage(data, operations))
    try:
        assert isinstance(read_volume(path), Volume)
    except SkipVolume as skip:
        assert skip.reason and skip.detail


@pytest.mark.parametrize("compressed", [False, True])
def test_a_billion_declared_frames_allocate_nothing(tmp_path, compressed):
    dataset = make_dataset(random_pixels())
    if compressed:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.NumberOfFrames = 10**9
    path = save(dataset, tmp_path)
    tracemalloc.start()
    with pytest.raises(SkipVolume, match="more than any scanner") as caught:
        read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.reason == "too_large" and peak < 2**24


def test_a_codestream_that_claims_another_size_is_not_decoded(tmp_path):
    dataset = make_dataset(random_pixels((4, 64, 64)))
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    path = save(dataset, tmp_path)
    data = bytearray(path.read_bytes())
    start = 0
    while (start := data.find(b"\xff\x4f\xff\x51", start)) >= 0:
        data[start + 8 : start + 16] = b"\x7f\xff\xff\xff" * 2  # 2 G x 2 G pixels
        start += 1
    path.write_bytes(data)
    with pytest.raises(SkipVolume, match="another size") as caught:
        read_volume(path)
    assert caught.value.reason == "corrupt_frames"


def test_array_header_is_checked_before_memory_is_taken(tmp_path):
    data = array_file(np.zeros((2, 3, 4), np.uint8))
    path = tmp_path / "huge.npy"
    path.write_bytes(data.replace(b"(2, 3, 4), }", b"(9, 30000, 400)}"))
    with pytest.raises(SkipVolume) as caught:
        read_volume(path)
    assert caught.value.reason in ("truncated_pixel_data", "corrupt_frames")


def test_pickles_are_never_opened(tmp_path):
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SkipVolume, match="pickled") as caught:
        read_volume(path)
    assert caught.value.reason == "unsupported_pixels"


def test_zip_without_a_volume_is_named(tmp_path):
    path = tmp_path / "other.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(SkipVolume) as caught:
        read_volume(path)
    assert caught.value.reason == "unsupported_format"


def test_damaged_lossless_jpeg_does_not_end_the_process(data_root, tmp_path):
    source = data_root / "oct" / "variants" / "jpeg_lossless_sv1.dcm"
    data = bytearray(source.read_bytes())
    start = data.find(b"\xff\xc3")
    data[start + 1] = 0xC0  # a baseline frame header over lossless data: GDCM aborts on it
    data[start + 60 : start + 400 : 7] = b"\xff" * len(data[start + 60 : start + 400 : 7])
    path = tmp_path / "damaged.dcm"
    path.write_bytes(data)
    code = f"""
from jepa3d.data import read_volume, SkipVolume
try:
    print(read_volume({str(path)!r}).metadata["interpolated_frames"])
except SkipVolume as skip:
    print(skip.reason.value)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[0]", "corrupt_frames")

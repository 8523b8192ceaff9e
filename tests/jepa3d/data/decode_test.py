"""Records decoded by hand are those that tensorflow-datasets decodes, and damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from jepa3d.data.decode import decode_record
from jepa3d.data.records import features

SHAPE, PATCH = (8, 32, 48), (4, 16, 16)


@pytest.fixture(scope="module")
def example() -> dict:
    rng = np.random.default_rng(0)
    return {
        "volume": rng.integers(0, 256, SHAPE, dtype=np.uint8),
        "foreground": rng.integers(0, 2, (2, 2, 3), dtype=np.uint8),
        # Numbers of one to ten bytes; -1 is stored as 2 to the 64 minus 1.
        "valid_box": np.array([[0, 8], [127, 128], [-1, 2**31 - 1]], np.int32),
        "spacing_mm": np.array([0.1, 0.004, 1e-30], np.float32),
        "mean": np.float32(0.3),
        "std": np.float32(0.0),
        "scanner": "x",
        "participant": "p" * 200,
        "laterality": "",
        "path": "ä/ö.dcm",
    }


@pytest.fixture(scope="module")
def record(example) -> bytes:
    return features(SHAPE, PATCH).serialize_example(example)


def test_every_value_is_the_one_that_was_stored(record, example):
    reference = features(SHAPE, PATCH).deserialize_example_np(record)
    found = decode_record(record, SHAPE, PATCH)
    assert found.keys() == {"volume", "foreground", "valid_box", "spacing_mm", "mean", "std"}
    for name, value in found.items():
        np.testing.assert_array_equal(value, reference[name], err_msg=name)
        np.testing.assert_array_equal(value, example[name], err_msg=name)
    types = {name: str(value.dtype) for name, value in found.items()}
    assert types == {
        "volume": "uint8",
        "foreground": "bool",
        "valid_box": "int32",
        "spacing_mm": "float32",
        "mean": "float32",
        "std": "float32",
    }


def test_voxels_are_not_copied(record):
    volume = decode_record(record, SHAPE, PATCH)["volume"]
    assert np.shares_memory(volume, np.frombuffer(record, np.uint8))
    assert not volume.flags.writeable


@pytest.mark.parametrize("shape", [(8, 32, 32), (4, 32, 48)])
def test_a_record_of_another_shape_is_an_error(record, shape):
    with pytest.raises(ValueError):
        decode_record(record, shape, PATCH)


def test_a_cut_record_is_an_error_wherever_it_ends(record):
    # Around the voxels every byte, between them one in a thousand.
    ends = {*range(400), *range(0, len(record), 1000), *range(len(record) - 400, len(record))}
    for end in ends:
        with pytest.raises(ValueError):
            decode_record(record[:end], SHAPE, PATCH)


def test_any_damaged_byte_gives_arrays_of_the_shape_or_an_error(record):
    """Never another exception, and no endless walk."""
    rng = np.random.default_rng(1)
    outside = [place for place in range(len(record)) if place < 300 or place > len(record) - 500]
    refused = 0
    for place in rng.choice(outside, 300):
        damaged = bytearray(record)
        damaged[place] ^= 1 << rng.integers(8)
        try:
            found = decode_record(bytes(damaged), SHAPE, PATCH)
        except ValueError:
            refused += 1
        else:
            assert found["volume"].shape == SHAPE
    assert 0 < refused < 300

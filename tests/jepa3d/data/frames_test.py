"""Broken frames of a volume are interpolated between those that could be decoded."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from jepa3d.data.dicom_frames import _apply_sign, _fill_gaps


def test_missing_frames_lie_on_the_line_between_their_neighbors():
    frames = [np.full((2, 3), value, np.uint8) for value in (10, 0, 0, 40)]
    volume = _fill_gaps([frames[0], None, None, frames[3]])
    np.testing.assert_array_equal(volume[:, 0, 0], [10, 20, 30, 40])
    assert volume.dtype == np.uint8


def test_missing_frames_at_the_ends_are_copies_of_the_nearest():
    frame = np.arange(6, dtype=np.uint16).reshape(2, 3)
    volume = _fill_gaps([None, frame, None])
    np.testing.assert_array_equal(volume, np.stack([frame] * 3))


@pytest.mark.parametrize(("signed", "expected"), [(0, [0x123, 0x801]), (1, [0x123, -0x7FF])])
def test_bits_above_those_declared_as_used_are_ignored(signed, expected):
    header = SimpleNamespace(
        bits_stored=12, unused_low_bits=0, dataset={"PixelRepresentation": signed}
    )
    words = _apply_sign(header, np.array([0xF123, 0x0801], np.uint16))
    np.testing.assert_array_equal(words, expected)

"""Broken frames of a volume are interpolated between those that could be decoded."""

from __future__ import annotations

import numpy as np

from jepa3d.data.dicom_frames import _fill_gaps


def test_missing_frames_lie_on_the_line_between_their_neighbors():
    frames = [np.full((2, 3), value, np.uint8) for value in (10, 0, 0, 40)]
    volume = _fill_gaps([frames[0], None, None, frames[3]])
    np.testing.assert_array_equal(volume[:, 0, 0], [10, 20, 30, 40])
    assert volume.dtype == np.uint8


def test_missing_frames_at_the_ends_are_copies_of_the_nearest():
    frame = np.arange(6, dtype=np.uint16).reshape(2, 3)
    volume = _fill_gaps([None, frame, None])
    np.testing.assert_array_equal(volume, np.stack([frame] * 3))

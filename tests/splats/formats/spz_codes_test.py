"""The bytes of `.spz` are those of the format's description, not only their own inverse."""

from __future__ import annotations

import numpy as np
import pytest

from splats.formats.cloud import GaussianCloud
from splats.formats.spz_codes import encode


@pytest.mark.parametrize(
    ("field", "values", "stream", "expected"),
    [
        # 24-bit fixed point with 12 bits behind the point, little endian
        ("means", [1.0, -1.0, 0.5], 0, [0, 16, 0, 0, 240, 255, 0, 8, 0]),
        ("opacity_logits", [0.0], 1, [128]),  # 255 * 0.5, halves upwards
        ("harmonics", [1.0, 0.0, -2.0], 2, [166, 128, 51]),  # 0.15 * 255 * c + 127.5
        ("log_scales", [-4.0, 0.0, -10.0], 3, [96, 160, 0]),  # 16 * (s + 10)
    ],
)
def test_bytes_are_those_of_the_description(field, values, stream, expected):
    arrays = {
        "means": np.zeros((1, 3)),
        "log_scales": np.zeros((1, 3)),
        "quaternions": np.array([[1.0, 0, 0, 0]]),
        "opacity_logits": np.zeros(1),
        "harmonics": np.zeros((1, 1, 3)),
    }
    arrays[field] = np.reshape(values, arrays[field].shape)
    assert list(encode(GaussianCloud.of(**arrays))[stream]) == expected

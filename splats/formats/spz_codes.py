"""Numbers of a Gaussian as the bytes of `.spz`, the same in all containers of the format.

Six streams in this order, each for all Gaussians: positions (24-bit fixed point; half floats in
v1), opacities, colors, log-scales, rotations, harmonics (by coefficient, RGB together).
Source: the format description in nianticlabs/spz.
"""

from __future__ import annotations

import numpy as np

from splats.formats.cloud import GaussianCloud, logits, opacities
from splats.formats.quaternions import drop_largest, normalized, restore_largest

STREAMS = ("positions", "opacities", "colors", "scales", "rotations", "harmonics")
FRACTION_BITS = 12
EXTENT = 2 ** (23 - FRACTION_BITS)  # world units that positions reach
_COLOR_SCALE = 0.15  # of the format: a byte covers coefficients of +-3.3


def stream_sizes(version: int, count: int, coefficients: int) -> list[int]:
    """Bytes of each of STREAMS; `coefficients` of the harmonics, the constant one included."""
    per_point = (6 if version == 1 else 9, 1, 3, 3, 4 if version >= 3 else 3)
    return [count * size for size in (*per_point, 3 * (coefficients - 1))]


def encode(cloud: GaussianCloud) -> list[bytes]:
    """The six streams of versions 3 and 4; means must lie within +-EXTENT."""
    scaled = cloud.means.astype(np.float64) * 2**FRACTION_BITS
    fixed = np.trunc(scaled + np.copysign(0.5, scaled)).astype("<i4")  # halves away from zero
    return [
        fixed.reshape(-1, 1).view(np.uint8)[:, :3].tobytes(),
        _byte(255 * opacities(cloud.opacity_logits)),
        _byte(cloud.harmonics[:, 0] * (_COLOR_SCALE * 255) + 127.5),
        # Sizes from e^-10 to e^5.9 world units in steps of 6 %.
        _byte((cloud.log_scales + 10) * 16),
        _pack_rotations(cloud.quaternions).tobytes(),
        _pack_harmonics(cloud.harmonics[:, 1:]),
    ]


def decode(
    streams: list[np.ndarray], version: int, count: int, bits: int, coefficients: int
) -> GaussianCloud:
    """The cloud of six streams [bytes] uint8; `bits` of positions are behind the point."""
    positions, alphas, colors, scales, rotations, rest = streams
    if version == 1:
        means = positions.view("<f2").astype(np.float64).reshape(count, 3)
    else:
        padded = np.zeros((3 * count, 4), np.uint8)
        padded[:, 1:] = positions.reshape(-1, 3)
        # The three bytes sit in the upper ones: the arithmetic shift extends the sign.
        means = (padded.view("<i4").reshape(count, 3) >> 8) / 2.0**bits
    if version >= 3:
        quaternions = _unpack_rotations(rotations.view("<u4"))
    else:
        xyz = rotations.reshape(count, 3) / 127.5 - 1
        w = np.sqrt(np.maximum(0, 1 - np.sum(xyz * xyz, axis=1, keepdims=True)))
        quaternions = normalized(np.concatenate([w, xyz], axis=1))
    constant = (colors.reshape(count, 1, 3) / 255.0 - 0.5) / _COLOR_SCALE
    higher = (rest.reshape(count, coefficients - 1, 3).astype(np.float64) - 128) / 128
    return GaussianCloud.of(
        means,
        scales.reshape(count, 3) / 16.0 - 10,
        quaternions,
        logits(alphas / 255.0),
        np.concatenate([constant, higher], axis=1),
    )


def _byte(values: np.ndarray) -> bytes:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8).tobytes()


def _pack_rotations(quaternions: np.ndarray) -> np.ndarray:
    """Words [N] uint32: index of the largest of xyzw, then sign and 9 bits of the other three."""
    largest, others = drop_largest(np.roll(quaternions, -1, axis=1))
    code = largest.astype(np.uint32)
    for column in others.T:
        magnitude = np.floor(511 * np.abs(column) / np.sqrt(0.5) + 0.5).astype(np.uint32)
        sign = (column < 0).astype(np.uint32)
        code = (code << np.uint32(10)) | (sign << np.uint32(9)) | np.minimum(magnitude, 511)
    return code.astype("<u4")


def _unpack_rotations(code: np.ndarray) -> np.ndarray:
    columns = []
    for shift in (20, 10, 0):
        magnitude = ((code >> np.uint32(shift)) & np.uint32(511)) / 511 * np.sqrt(0.5)
        negative = (code >> np.uint32(shift + 9)) & np.uint32(1)
        columns.append(np.where(negative, -magnitude, magnitude))
    xyzw = restore_largest(code >> np.uint32(30), np.stack(columns, axis=1))
    return np.roll(xyzw, 1, axis=1)


def _pack_harmonics(rest: np.ndarray) -> bytes:
    """Steps of 1/128, grouped to 5 bits for degree 1 and 4 bits above; 0 stays exactly 0."""
    # Coarser steps make longer runs of equal bytes, which gzip then shrinks.
    bucket = np.where(np.arange(rest.shape[1]) < 3, 8, 16)[None, :, None]
    code = np.floor(rest * 128.0 + 0.5) + 128
    code = np.floor((code + bucket // 2) / bucket) * bucket
    return np.clip(code, 0, 255).astype(np.uint8).tobytes()

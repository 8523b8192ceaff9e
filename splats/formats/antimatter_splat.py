"""The `.splat` format of antimatter15's web viewer: 32 bytes a Gaussian, no view dependence.

Row: 3 float32 position, 3 float32 linear scale, 4 uint8 RGB and opacity, 4 uint8 wxyz quaternion
(128 q + 128).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splats.formats.byte_reader import read_whole
from splats.formats.cloud import GaussianCloud, logits, opacities
from splats.formats.quaternions import normalized
from splats.gaussians.harmonic_basis import constant_to_rgb, rgb_to_constant
from training.errors import InputError

_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("turn", "u1", 4)])


def write_splat(path: Path | str, cloud: GaussianCloud) -> None:
    """Writes `cloud`; harmonics above the constant are left out."""
    table = np.zeros(len(cloud), _ROW)
    table["mean"] = cloud.means
    # e^-80 and e^80 still fit float32.
    table["scale"] = np.exp(np.clip(cloud.log_scales, -80, 80))
    color = constant_to_rgb(cloud.harmonics[:, 0])
    table["rgba"][:, :3] = np.rint(255 * np.clip(color, 0, 1))
    table["rgba"][:, 3] = np.rint(255 * opacities(cloud.opacity_logits))
    unit = normalized(cloud.quaternions)
    # 1.0 would be 256, which a byte takes for 0.
    table["turn"] = np.clip(np.rint(128 * unit + 128), 0, 255)
    Path(path).write_bytes(table.tobytes())


def read_splat(path: Path | str) -> GaussianCloud:
    """Reads a `.splat` file; the opacity 1 comes back as 1 - 1/510, a size of 0 as e^-80."""
    data = read_whole(Path(path))
    if len(data) % _ROW.itemsize:
        raise InputError(
            f"{path} has {len(data)} bytes, which is no multiple of 32; it is cut off or not a "
            ".splat file."
        )
    table = np.frombuffer(data, _ROW)
    rgba = table["rgba"] / 255.0
    turn = (table["turn"].astype(np.float64) - 128) / 128
    with np.errstate(divide="ignore", invalid="ignore"):
        # The sign of a size does not change its Gaussian.
        sizes = np.maximum(np.log(np.abs(table["scale"].astype(np.float64))), -80)
    return GaussianCloud.of(
        table["mean"],
        sizes,
        normalized(turn),
        logits(rgba[:, 3]),
        rgb_to_constant(rgba[:, :3])[:, None, :],
    )

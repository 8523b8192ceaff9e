"""How the metrics of splats are named in charts, and its line below a logged step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

TITLES = {
    "psnr": ("PSNR", "dB"),
    "grad_norm_data": ("Gradient norm of the data terms", "before clipping"),
    "grad_norm_regularizer": ("Gradient norm of the regularizers", "before clipping"),
}
SPELLINGS = {"psnr": "PSNR", "ssim": "SSIM", "dssim": "D-SSIM", "lpips": "LPIPS", "l1": "L1"}
OPTIMIZATION = ("grad_norm_data", "grad_norm_regularizer")

_DATA_NORMS = "train/grad_norm_data/"


def subject(config: Mapping[str, Any]) -> str:
    """Name of the scene: that of its folder."""
    scene = config.get("scene")
    path = scene.get("path") if isinstance(scene, Mapping) else None
    return f"Scene {PurePath(path).name}" if isinstance(path, str) and PurePath(path).name else ""


def progress_lines(metrics: Mapping[str, float]) -> list[str]:
    """The gradient norms of the terms that see photographs, apart from the regularizers'."""
    norms = "  ".join(
        f"{name.removeprefix(_DATA_NORMS)} {value:.1e}"
        for name, value in metrics.items()
        if name.startswith(_DATA_NORMS)
    )
    return [f"      gradient norms of the data terms: {norms}"] if norms else []

"""How the metrics of splats are named in charts, and its line below a logged step."""

from __future__ import annotations

from collections.abc import Mapping

TITLES = {
    "psnr": ("PSNR", "dB"),
    "grad_norm_data": ("Gradient norm of the data terms", "before clipping"),
    "grad_norm_regularizer": ("Gradient norm of the regularizers", "before clipping"),
}
SPELLINGS = {"psnr": "PSNR", "ssim": "SSIM", "dssim": "D-SSIM", "lpips": "LPIPS", "l1": "L1"}
OPTIMIZATION = ("grad_norm_data", "grad_norm_regularizer")

_DATA_NORMS = "train/grad_norm_data/"


def progress_lines(metrics: Mapping[str, float]) -> list[str]:
    """The gradient norms of the terms that see photographs, apart from the regularizers'."""
    norms = "  ".join(
        f"{name.removeprefix(_DATA_NORMS)} {value:.1e}"
        for name, value in metrics.items()
        if name.startswith(_DATA_NORMS)
    )
    return [f"      gradient norms of the data terms: {norms}"] if norms else []

"""What the command tests share: tiny data, a tiny recipe, and how a run is read back."""

from __future__ import annotations

from pathlib import Path

from training.record.metrics import read_metrics

RECIPE = """
from ml_collections import ConfigDict


def get_config(arg=""):
    config = ConfigDict()
    config.system = "jepa3d"
    config.batch_size = 8
    config.total = dict(updates=12)
    config.optimizer = dict(learning_rate=1e-3, schedule=dict(warmup_fraction=0.2))
    config.ema = dict(kind="cosine", start=0.9, end=0.99)
    config.model = dict(
        volume=(8, 32, 32),
        patch=(4, 8, 8),
        encoder=dict(dim=16, depth=2, heads=2),
        predictor=dict(dim=8, depth=1, heads=2),
    )
    config.data = dict(folder=arg)
    config.loader = dict(workers=2)
    config.evaluation = dict(every=dict(updates=6), batch_size=8)
    config.checkpoint = dict(every=dict(updates=4), keep_every=4)
    config.log = dict(every=1)
    return config
"""


def prepare_synthetic(folder: Path, participants: int = 12) -> Path:
    """Writes and prepares synthetic volumes; returns the folder of records."""
    from jepa3d.config import PrepareSettings
    from jepa3d.data.prepare import prepare
    from jepa3d.synthetic import write_tree

    write_tree(folder / "dicom", participants=participants)
    settings = PrepareSettings(shape=(8, 32, 32), patch=(4, 8, 8), workers=0)
    prepare(folder / "dicom", folder / "records", settings)
    return folder / "records"


def losses(workdir: Path) -> dict[int, float]:
    """Step -> training loss as logged."""
    return {row["step"]: row["train/loss"] for row in read_metrics(workdir) if "train/loss" in row}

"""A hand and an object from a video in minutes: tri-planes, small networks, an SDF cache.

    podvision train --config configs/hand_object/fast.py:SEQUENCE --workdir runs/mouse

`arg`: SEQUENCE[,UPDATES]; a HOLD build folder, absolute or under PODVISION_DATA. Without it a
sequence is made on the spot.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from hand_object.config import preset, reconstruction_optimizer
from training.config import ScheduleConfig


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: folder of a sequence, and the number of updates after a comma (1200)."""
    folder, _, count = arg.partition(",")
    updates = int(count or 1200)
    schedule = ScheduleConfig("warmup_cosine")
    optimizer = reconstruction_optimizer(
        networks=1e-3,
        planes=3e-3,
        densities=1e-2,
        poses=1e-4,
        clip_norm=None,
        schedule=schedule,
    )
    every = max(updates // 3, 1)
    return ConfigDict(
        {
            "system": "hand_object",
            "total": {"updates": updates},
            "updates_per_call": 10,
            "batch_size": 8,
            "sequence": {"path": folder or "synthetic", "longest": 160},
            "model": asdict(preset("fast")),
            "optimizer": asdict(optimizer),
            "rays": {"per_frame": 32},
            "losses": {
                "mask": 1.0,
                "eikonal": 0.3,
                "sparse": 0.1,
                "template": 5.0,
                "poses": 1.0,
            },
            "evaluation": {"every": {"updates": every}, "batch_size": 1},
            "checkpoint": {"every": {"updates": every}, "best_metric": "psnr", "best_mode": "max"},
        }
    )

"""Fox at 68x120 pixels, 25 photographs, from 2,000 points: the CPU check on real images.

    PODVISION_DATA=... podvision train --config configs/splats/fox_tiny.py --workdir /tmp/fox_tiny

Two CPU cores. Held-out views (every 8th): at least 18 dB after 300 updates, 24 dB after 1,500.
The photographs are licensed for research only and are not part of this package.
"""

from ml_collections import ConfigDict

from splats.config import splat_optimizer
from training.typed import plain


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: number of updates (1500)."""
    updates = int(arg or 1500)
    return ConfigDict(
        {
            "system": "splats",
            "total": {"updates": updates},
            "updates_per_call": 10,
            "optimizer": plain(splat_optimizer()),
            "scene": {"path": "splats/fox_tiny"},
            "model": {"initial_capacity": 4096, "capacity": 8192},
            "densify": {"strategy": "default", "start": 300, "stop": 1200, "gradient": 4e-4},
            "render": {"pair_capacity": 1 << 15},
            "evaluation": {"every": {"updates": min(updates, 300)}, "batch_size": 1},
            "checkpoint": {
                "every": {"updates": min(updates, 500)},
                "best_metric": "psnr",
                "best_mode": "max",
            },
        }
    )

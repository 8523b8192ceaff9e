"""Fox at 68x120 pixels, 25 photographs, from 2,000 points: the CPU check on real images.

    PODVISION_DATA=... podvision train --config configs/splats/fox_tiny.py --workdir /tmp/fox_tiny

Two CPU cores. Held-out views (every 8th): at least 18 dB after 300 updates, 24 dB after 1,500.
The photographs are licensed for research only and are not part of this package.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: number of updates (1500)."""
    updates = int(arg or 1500)
    return ConfigDict(
        {
            "system": "splats",
            "total": {"updates": updates},
            "updates_per_call": 10,
            "scene": {"path": "splats/fox_tiny"},
            "model": {"initial_capacity": 4096, "cap_max": 8192},
            "densify": {
                "strategy": "default",
                "refine_start_iter": 300,
                "refine_stop_iter": 1200,
                "grow_grad2d": 4e-4,
            },
            "render": {"pair_capacity": 1 << 15},
            "evaluation": {"every": {"updates": min(updates, 300)}, "batch_size": 1},
            "checkpoint": {
                "every": {"updates": min(updates, 500)},
                "best_metric": "psnr",
                "best_mode": "max",
            },
        }
    )

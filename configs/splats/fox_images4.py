"""Fox at 134x240 pixels, 50 photographs, from 13,564 reconstructed points, with densification.

    PODVISION_DATA=... podvision train --config configs/splats/fox_images4.py --workdir /tmp/fox

Two CPU cores. Held-out views (every 8th): at least 25 dB after 1,000 updates; at least 26.8 dB
after 2,000, with the number of Gaussians grown by more than half in more than 10 refinements.
The photographs are licensed for research only and are not part of this package.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: number of updates (2000)."""
    updates = int(arg or 2000)
    return ConfigDict(
        {
            "system": "splats",
            "total": {"updates": updates},
            "updates_per_call": 10,
            "scene": {"path": "splats/fox_pinhole", "images": "images_4"},
            "model": {"initial_capacity": 16_384, "cap_max": 65_536},
            "densify": {"strategy": "default", "refine_start_iter": 300, "refine_stop_iter": 1800},
            "render": {"pair_capacity": 1 << 17},
            "evaluation": {"every": {"updates": min(updates, 500)}, "batch_size": 1},
            "checkpoint": {
                "every": {"updates": min(updates, 500)},
                "best_metric": "psnr",
                "best_mode": "max",
            },
        }
    )

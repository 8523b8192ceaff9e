"""A synthetic scene (sphere, box, ground): 30 views of 96x72 pixels, with densification.

    podvision train --config configs/splats/smoke.py --workdir runs/splats_smoke
    podvision train --config configs/splats/smoke.py:SCENE --workdir runs/splats_smoke

Two CPU cores, about a minute; held-out PSNR from 14.7 to 27 dB. Nothing is
downloaded: without SCENE the scene is ray cast on the spot.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: folder of a scene; default is the synthetic one."""
    return ConfigDict(
        {
            "system": "splats",
            "total": {"updates": 600},
            "updates_per_call": 10,
            "scene": {"path": arg or "synthetic"},
            "model": {"initial_capacity": 4096, "cap_max": 8192, "sh_every": 200},
            "densify": {
                "strategy": "default",
                "refine_start_iter": 100,
                "refine_stop_iter": 500,
                "refine_every": 50,
                "reset_every": 3000,
                "grow_grad2d": 4e-4,
            },
            "render": {"pair_capacity": 1 << 15},
            "evaluation": {"every": {"updates": 200}, "batch_size": 1},
            "checkpoint": {"every": {"updates": 200}, "best_metric": "psnr", "best_mode": "max"},
        }
    )

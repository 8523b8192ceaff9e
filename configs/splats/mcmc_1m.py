"""Markov chain Monte Carlo densification with a budget of a million Gaussians.

    podvision train --config configs/splats/mcmc_1m.py:SCENE --workdir runs/scene

SCENE is a folder with `images` and a COLMAP model (or under PODVISION_DATA), by default the fox.
One accelerator with 16 GB: the state takes 0.71 GB at 1,000,000 Gaussians. Published figures of
the same settings (gsplat): 29.18 dB on 7 scenes of Mip-NeRF 360 in 15 minutes on an A100. This
program has not been measured there. On a pod add --config.batch_size=16, --config.mesh.data=-1
and --config.batch_scaling=sqrt, and divide the numbers of updates by 16 (docs/splats.md).
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: folder of a scene."""
    return ConfigDict(
        {
            "system": "splats",
            "total": {"updates": 30_000},
            "updates_per_call": 20,
            "scene": {"path": arg or "splats/fox_pinhole"},
            "model": {"cap_max": 1_000_000, "init_opacity": 0.5, "init_scale": 0.1},
            "losses": {"opacity": 0.01, "scale": 0.01},
            "densify": {"strategy": "mcmc", "refine_start_iter": 500, "refine_stop_iter": 25_000},
            "render": {"pair_capacity": 1 << 20},
            "evaluation": {"every": {"updates": 5000}, "batch_size": 1},
            "checkpoint": {"every": {"updates": 5000}, "best_metric": "psnr", "best_mode": "max"},
            "log": {"every": 100},
        }
    )

"""A made-up sequence (a hand turns a bottle), tiny fields: the demo.

    podvision train --config configs/hand_object/smoke.py --workdir runs/hand_object_smoke
    podvision train --config configs/hand_object/smoke.py:SEQUENCE --workdir runs/hand_object_smoke

Nothing is downloaded: without SEQUENCE the video is drawn on the spot.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from hand_object.config import preset, reconstruction_optimizer


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: folder of a sequence; default is the synthetic one."""
    # The tri-planes' usual rate, 1e-2, tears so small a field apart before it is solid.
    optimizer = reconstruction_optimizer(
        networks=1e-3, planes=3e-3, densities=1e-2, poses=1e-4, clip_norm=None
    )
    return ConfigDict(
        {
            "system": "hand_object",
            "total": {"updates": 300},
            "updates_per_call": 10,
            "batch_size": 4,
            "sequence": {"path": arg or "synthetic", "longest": 80},
            "model": asdict(preset("smoke")),
            "optimizer": asdict(optimizer),
            "rays": {"per_frame": 64},
            "losses": {
                "mask": 1.0,
                "eikonal": 0.3,
                "sparse": 0.1,
                "template": 5.0,
                "poses": 1.0,
            },
            "prefit": {"updates": 300, "points": 2048, "batch": 512},
            "evaluation": {"every": {"updates": 150}, "batch_size": 1},
            "checkpoint": {"every": {"updates": 150}, "best_metric": "psnr", "best_mode": "max"},
        }
    )

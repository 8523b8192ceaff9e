"""The embedded prior: a small U-Net on grids of 16^3, learned from grasps made by rule.

    podvision train --config configs/hand_object/prior_mini.py --workdir runs/prior_mini
    podvision train --config configs/hand_object/prior_mini.py:MESHES --workdir runs/prior_mini

`arg`: a folder of OBJ meshes that are grasped, too (`hand_object/ycb_meshes` of the sample data).
Hardware: two CPU cores.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: folder of meshes; default is none."""
    return ConfigDict(
        {
            "system": "hand_object.prior",
            "total": {"updates": 400},
            "batch_size": 8,
            "optimizer": {
                "learning_rate": 2e-3,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
                "schedule": {"kind": "warmup_cosine", "warmup_fraction": 0.05},
            },
            "grasps": {"meshes": arg or None},
            "loader": {"workers": 1},
            "evaluation": {"every": {"updates": 200}, "batch_size": 8},
            "checkpoint": {"every": {"updates": 50}},
        }
    )

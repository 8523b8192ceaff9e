"""The embedded prior: a small U-Net on grids of 16^3, learned from grasps made by rule.

    podvision train --config configs/hand_object/prior_mini.py --workdir runs/prior_mini
    podvision train --config configs/hand_object/prior_mini.py:MESHES --workdir runs/prior_mini

`arg`: a folder of OBJ meshes that are grasped, too (`hand_object/ycb_meshes` of the sample data).
Hardware: two CPU cores; 400 updates took 8 CPU-minutes, compilation among them. The embedded
weights are its result with `arg` = hand_object/ycb_meshes (mean square errors of the object's
standardized grid behind the noise, over five steps): 0.216 on new objects of the learned families,
where the mean grid has 0.541, and 0.200 on procedural mugs, where it has 0.407. At the noisiest of
the five steps it is worse than the mean (0.564 and 0.496).
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

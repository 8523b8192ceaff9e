"""Stage one with HOLD's networks and sampler: color and masks, 100 epochs.

    podvision train --config configs/hand_object/stage1_rgb.py:SEQUENCE --workdir runs/stage1
    podvision train --config configs/hand_object/stage1_rgb.py:SEQUENCE,seed --workdir runs/stage1

`arg`: SEQUENCE[,PRESET]; PRESET is `seed` (networks of 4 and 8 layers of 256, the default) or
`hold` (8 and 4). An epoch is HOLD's: 400 updates of 10 frames with 128 pixels of each. For a GPU
or a pod: on two CPU cores an update takes about a minute (`fast.py` is for those).
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from hand_object.config import preset, reconstruction_optimizer

EPOCHS, UPDATES_PER_EPOCH = 100, 400


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: folder of a sequence, and the preset of the networks after a comma."""
    folder, _, name = arg.partition(",")
    optimizer = reconstruction_optimizer(networks=1e-4, densities=1e-4, poses=1e-5, clip_norm=0.5)
    return ConfigDict(
        {
            "system": "hand_object",
            "total": {"updates": EPOCHS * UPDATES_PER_EPOCH},
            "updates_per_call": 10,
            "batch_size": 10,
            "sequence": {"path": folder or "synthetic"},
            "model": asdict(preset(name or "seed")),
            "optimizer": asdict(optimizer),
            "rays": {"per_frame": 128},
            "losses": {"rgb": 1.0, "mask": 0.1, "eikonal": 0.1},
            "evaluation": {"every": {"updates": 4000}, "batch_size": 1},
            "checkpoint": {"every": {"updates": 2000}, "best_metric": "psnr", "best_mode": "max"},
        }
    )

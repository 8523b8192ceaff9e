"""Stage one on a TPU v4-32 (16 chips, 4 hosts): 65,536 rays an update, 4 frames a chip.

    podvision train --config configs/hand_object/v4_32.py:SEQUENCE --workdir gs://BUCKET/runs/stage1

`arg`: SEQUENCE[,PRESET] as in `stage1_rgb.py`, whose recipe it is with 51 times as many rays an
update and as many fewer updates: the same number of rays in all, rounded up. Not yet run on a pod,
nor compiled for one to the end: libtpu was stopped after 7 CPU minutes.
"""

from ml_collections import ConfigDict

from configs.hand_object import stage1_rgb

FRAMES, RAYS = 64, 1024  # of an update, and of each of its frames


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: folder of a sequence, and the preset of the networks after a comma."""
    config = stage1_rgb.get_config(arg)
    before = config.to_dict()
    growth = FRAMES * RAYS // (before["batch_size"] * before["rays"]["per_frame"])
    config.batch_size = FRAMES
    config.update(
        total={"updates": -(-before["total"]["updates"] // growth)},
        rays={"per_frame": RAYS},
        evaluation={"every": {"updates": 200}},
        checkpoint={"every": {"updates": 100}},
    )
    return config

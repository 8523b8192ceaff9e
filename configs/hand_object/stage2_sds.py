"""Stage two with the numbers of the original: a diffusion prior of grasps shapes what is not seen.

    podvision train --config configs/hand_object/stage2_sds.py:SEQUENCE,runs/1 --workdir runs/2

`arg`: SEQUENCE,PREVIOUS[,PRESET], as in `stage3_contact_temporal.py`. 30 epochs of 278 updates, SDS
in all of them. Needs a prior (`hand_object/prior`). For a GPU or a pod; not run to its end here.
"""

from ml_collections import ConfigDict

from configs.hand_object.stage3_contact_temporal import later


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: sequence, work folder of the stage before, and the preset of the networks."""
    config = later(arg, learning_rate=5e-5, clip_norm=1.0)
    config.phases = {"sds": {"coefficient": 50.0}}
    return config

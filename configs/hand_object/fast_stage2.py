"""What a small diffusion prior of grasps says, after `fast.py`: it shapes what no frame shows.

    podvision train --config configs/hand_object/fast_stage2.py:SEQUENCE,runs/a --workdir runs/b

`arg`: SEQUENCE,PREVIOUS[,UPDATES]; PREVIOUS is the work folder of a run of `fast.py`. The prior is
asked in every fourth update.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.hand_object.fast_stage3 import first_stage, later


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: sequence, work folder of the stage before, and the number of updates (300)."""
    return after(*first_stage(arg))


def after(config: Any, updates: int, previous: str = "") -> ConfigDict:
    """A first stage made the one that follows it."""
    config = later(config, updates, previous, poses=1e-4)
    config.phases = {
        "least_updates": max(updates // 2, 1),
        "sds": {"coefficient": 50.0, "every": 4},
    }
    return config

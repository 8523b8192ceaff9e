"""Contact and smooth motion after `fast.py`, in a minute or two.

    podvision train --config configs/hand_object/fast_stage3.py:SEQUENCE,runs/a --workdir runs/b

`arg`: SEQUENCE,PREVIOUS[,UPDATES]; PREVIOUS is the work folder of a run of `fast.py`. Contact acts
from the start, smoothness from a fifth of the updates on; both move poses only.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.hand_object import fast

RATES = {"networks": 2e-4, "planes": 5e-4, "densities": 1e-3}


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: sequence, work folder of the stage before, and the number of updates (300)."""
    return after(*first_stage(arg))


def first_stage(arg: str) -> tuple[ConfigDict, int, str]:
    """The recipe of the first stage, the updates of this one, and the stage before."""
    folder, previous, count = ([*arg.split(","), "", "", ""])[:3]
    updates = int(count or 300)
    return fast.get_config(f"{folder},{updates}"), updates, previous


def after(config: Any, updates: int, previous: str = "") -> ConfigDict:
    """A first stage made the one that follows it."""
    config = later(config, updates, previous, poses=2e-4)
    # What a preprocessing found is no longer what poses should stay near to.
    config.losses.poses = 0.0
    config.phases = {
        "overlap": "cumulative",
        "least_updates": max(updates // 2, 1),
        # Depth is a mean over all of the skin, of which little enters the object, gaps are one over
        # a few zones: with the original's 5 to 1, gaps are all that the gradient sees.
        "contact": {"coefficient": 1.0, "share": 0.2, "penetration": 500.0},
        "temporal": {
            "coefficient": 0.01,
            "share": 0.2,
            "start": updates // 5,
            "velocity": 0.0,
            "acceleration": 1.0,
        },
    }
    return config


def later(config: Any, updates: int, previous: str, poses: float) -> ConfigDict:
    """A first stage with another start and lower rates, and a balance for so few updates.

    Args:
      poses: learning rate of the pose tables.
    """
    every = {"updates": max(updates // 2, 1)}
    config.total = {"updates": updates}
    config.evaluation.every = every
    config.checkpoint.every = every
    config.checkpoint.init_from = previous or "previous"
    config.prefit = {"updates": 0}
    config.optimizer.learning_rate = RATES["networks"]
    for group in config.optimizer.groups:
        group["learning_rate"] = (RATES | {"poses": poses})[group["name"]]
    config.balance = {"every": 24, "ramp": max(updates // 10, 1)}
    return config

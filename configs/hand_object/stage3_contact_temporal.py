"""Stage three with the numbers of the original: a little SDS, then contact, then smooth motion.

    podvision train --config configs/hand_object/stage3_contact_temporal.py:DIR,run2 --workdir run3

`arg`: SEQUENCE,PREVIOUS[,PRESET]; PREVIOUS is the work folder of the stage before, PRESET as in
`stage1_rgb.py`. 30 epochs of 278 updates: with 55, as the original had, contact and smoothness
would never have begun. SDS acts in updates 0-1999, contact from 2000 on, smoothness from 5000 on.
For a GPU or a pod; not run to its end here.

By default each term has a share of the gradient and its coefficient only says that it is on; with
`--config.balance.mode=fixed` the coefficients count, up to `balance.most` of the loss. Without a
prior: `--config.phases.sds.coefficient=0`.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.hand_object import stage1_rgb

EPOCHS, UPDATES_PER_EPOCH = 30, 278


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: sequence, work folder of the stage before, and the preset of the networks."""
    config = later(arg, learning_rate=2e-5, clip_norm=2.0)
    config.phases = {
        "overlap": "cumulative",
        "sds": {"coefficient": 10.0, "start": 0, "last": 1999},
        "contact": {
            "coefficient": 1.0,
            "start": 2000,
            "penetration": 5.0,
            "attraction": 1.0,
            "unit": 0.005,
        },
        "temporal": {
            "coefficient": 0.01,
            "start": 5000,
            "velocity": 0.005,
            "acceleration": 0.001,
            "window": 3,
        },
    }
    return config


def later(arg: str, learning_rate: float, clip_norm: float) -> Any:
    """The first stage made a later one: its start, and lower rates (poses a tenth of networks)."""
    folder, previous, preset = ([*arg.split(","), "", "", ""])[:3]
    config: Any = stage1_rgb.get_config(f"{folder},{preset}")
    config.total = {"updates": EPOCHS * UPDATES_PER_EPOCH}
    config.evaluation.every = {"updates": 1000}
    config.checkpoint.init_from = previous or "previous"
    config.prefit = {"updates": 0}  # hands were taught in the first stage
    config.optimizer.learning_rate = learning_rate
    config.optimizer.clip_norm = clip_norm
    for group in config.optimizer.groups:
        group["learning_rate"] = learning_rate / 10 if group["name"] == "poses" else learning_rate
    return config

"""Stage one as HOLD's release has it: 8 layers of 256 for the distance, its terms.

    podvision train --config configs/hand_object/hold.py:SEQUENCE --workdir runs/hold

Its template term is 5, its eikonal term nearly off, and its gradients are clipped at 0.5. Two
things differ: `model.compose` is `additive`, which has no bias (`hold_sort` is for comparison), and
the coefficients of `mask` and `sparse` are those that HOLD ends with, without its ramps. For a
GPU or a pod; not run to its end here.
"""

from ml_collections import ConfigDict

from configs.hand_object import stage1_rgb


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: folder of a sequence."""
    config = stage1_rgb.get_config(f"{arg},hold")
    config.losses = {
        "rgb": 1.0,
        "mask": 0.1,
        "eikonal": 1e-5,
        "sparse": 1.0,
        "template": 5.0,
    }
    return config

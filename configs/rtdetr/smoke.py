"""A detector of drawn shapes, in minutes on two CPU cores: the demo.

    podvision demo rtdetr --output runs/demo

400 updates of 8 images of 128 × 128.
"""

from ml_collections import ConfigDict

from configs.rtdetr import tiny_coco


def get_config(arg: str = "") -> ConfigDict:
    """The recipe; `arg` is the folder of prepared data."""
    config = tiny_coco.get_config(arg or "data/shapes")
    config.total = dict(updates=400)
    config.evaluation = dict(every=dict(updates=200), batch_size=16)
    config.checkpoint = dict(every=dict(updates=200), best_metric="AP50")
    return config

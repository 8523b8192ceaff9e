"""A network of one million parameters on a hundred photographs of COCO, on two CPU cores.

    podvision prepare rtdetr --input tiny_coco --output data/tiny_coco
    podvision overfit --config configs/rtdetr/tiny_coco.py:data/tiny_coco --examples 8 \
        --updates 1200
    podvision train --config configs/rtdetr/tiny_coco.py:data/tiny_coco --workdir runs/tiny_coco

50 images teach 80 classes nothing that holds for others: it shows that everything works.
"""

from ml_collections import ConfigDict

from configs.rtdetr.architectures import architecture


def get_config(arg: str = "") -> ConfigDict:
    """The recipe; `arg` is the folder of prepared data."""
    config = ConfigDict()
    config.system = "rtdetr"
    config.batch_size = 8
    config.total = dict(updates=1200)
    config.optimizer = dict(
        learning_rate=1e-3,
        weight_decay=1e-4,
        clip_norm=1.0,
        schedule=dict(kind="warmup_cosine", warmup_fraction=0.02, final_fraction=0.05),
    )
    config.ema = dict(kind="warmup", end=0.99, tau=100.0)
    config.model = architecture("tiny")
    config.data = dict(folder=arg or "data/tiny_coco", size=(128, 128), max_objects=40)
    config.loss = dict(denoising=dict(slots=20))
    config.loader = dict(workers=2)
    config.evaluation = dict(every=dict(updates=300), batch_size=8)
    config.checkpoint = dict(every=dict(updates=300), best_metric="AP50")
    config.log = dict(every=10)
    return config

"""RT-DETR R50 on COCO on a TPU v4-32 (16 chips, 4 hosts): 8 images a chip.

    podvision train --config configs/rtdetr/v4_32.py:gs://BUCKET/coco \
        --workdir gs://BUCKET/runs/coco --config.checkpoint.init_from=gs://BUCKET/runs/backbone

The published recipe at batch 128: the learning rate grows with the square root of the batch up to
4 times, average and warm-up are counted in images. Not yet run on a pod; libtpu compiled the whole
update for this slice: 7.4 of 30.75 GiB a chip, at least 135 ms an update (docs/performance.md).
"""

from ml_collections import ConfigDict

from configs.rtdetr import coco_r50_640

BATCH = 128
GROWTH = BATCH // 16


def get_config(arg: str = "") -> ConfigDict:
    """The published recipe at the size of a pod; `arg` is the folder of prepared data."""
    config = coco_r50_640.get_config(arg)
    config.batch_size = BATCH
    rate = min(1e-4 * GROWTH**0.5, 4e-4)
    optimizer = dict(
        learning_rate=rate,
        schedule=dict(warmup_updates=2000 // GROWTH),
        groups=(dict(name="backbone", learning_rate=rate / 10),),
    )
    config.update(optimizer=optimizer)
    config.ema = dict(kind="warmup", end=0.9999**GROWTH, tau=2000.0 / GROWTH)
    # Few shapes: each is compiled once, and a size that is drawn holds for the whole batch.
    config.update(data=dict(scales=((544, 544), (640, 640), (640, 640), (736, 736))))
    config.loader = dict(workers=32, prefetch=3)
    config.update(evaluation=dict(batch_size=256))
    return config

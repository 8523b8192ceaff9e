"""RT-DETR R50 on COCO at 1920 × 1080: batch 16, no accumulation, 72 epochs, one H200.

    podvision train --config configs/rtdetr/h200_1920.py:data/coco --workdir runs/coco_1920 \
        --config.checkpoint.init_from=runs/backbone

Images keep their aspect on a canvas of 1920 × 1088 (1088 is the next multiple of 32). 682 GFLOP an
image forward, five times those at 640. COCO's photographs are at most 640 px long and gain nothing
by it: this is meant for data that has the pixels. Not yet run on this GPU.
"""

from ml_collections import ConfigDict

from configs.rtdetr import coco_r50_640

# (height, width), all about 16:9.
SCALES = ((928, 1600), (992, 1760), (1088, 1920), (1184, 2080), (1280, 2240))


def get_config(arg: str = "") -> ConfigDict:
    """The published recipe on a wide canvas; `arg` is the folder of prepared data."""
    config = coco_r50_640.get_config(arg)
    config.update(model=dict(remat=True, decoder=dict(anchors="square_pixels")))
    config.update(data=dict(size=(1088, 1920), resize="letterbox", scales=SCALES))
    config.update(evaluation=dict(batch_size=8))
    return config

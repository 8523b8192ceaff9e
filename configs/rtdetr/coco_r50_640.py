"""RT-DETR R50 on COCO at 640 × 640: the published recipe (Zhao et al. 2024; 6x, v2's warm-up).

    podvision prepare rtdetr --input COCO --output data/coco
    podvision import rtdetr --from PATH --backbone-only --workdir runs/backbone
    podvision train --config configs/rtdetr/coco_r50_640.py:data/coco --workdir runs/coco \
        --config.checkpoint.init_from=runs/backbone

72 epochs of 118,287 images, batch 16, one GPU of 80 GB or more. The backbone starts from weights
that were trained on ImageNet, and its norms stay fixed. Published with them: 53.1 AP; not yet run
here.
"""

from ml_collections import ConfigDict

from configs.rtdetr.architectures import architecture

EPOCHS = 72


def get_config(arg: str = "") -> ConfigDict:
    """The recipe; `arg` is the folder of prepared data."""
    config = ConfigDict()
    config.system = "rtdetr"
    config.batch_size = 16
    config.total = dict(epochs=EPOCHS)
    config.optimizer = dict(
        learning_rate=1e-4,
        weight_decay=1e-4,
        clip_norm=0.1,
        # As published: constant after the warm-up.
        schedule=dict(kind="warmup_stable_decay", warmup_updates=2000, final_fraction=1.0),
        groups=(dict(name="backbone", learning_rate=1e-5),),
    )
    config.ema = dict(kind="warmup", end=0.9999, tau=2000.0)
    config.model = dict(architecture("r50"), dtype="bfloat16")
    # The last epoch is without strong augmentation and at one size.
    calm = (EPOCHS - 1) / EPOCHS
    config.data = dict(
        folder=arg or "data/coco",
        size=(640, 640),
        # 640 three times as often as each other size.
        scales=tuple((s, s) for s in (*range(480, 801, 32), 640, 640)),
        scale_phase=dict(start=0.0, stop=calm),
        augment=dict(strong=dict(start=0.0, stop=calm)),
    )
    config.loader = dict(workers=16, prefetch=3)
    config.evaluation = dict(every=dict(epochs=1), batch_size=32, at_start=False)
    config.checkpoint = dict(every=dict(epochs=0.25), best_metric="AP")
    config.log = dict(every=50)
    return config

"""RT-DETR R50 trained as DEIM does (Huang et al. 2025): MAL and dense one-to-one matching.

    podvision train --config configs/rtdetr/deim_r50_640.py:data/coco --workdir runs/deim \
        --config.checkpoint.init_from=runs/backbone

60 epochs, batch 16, one GPU of 80 GB or more. Mosaic and mixup between epochs 4 and 34, base
augmentation until 58, none at the end; all phases are fractions of the run. Published: 54.3 AP. The
authors' search of the average's decay on the validation set is left out. Not yet run here.
"""

from ml_collections import ConfigDict

from configs.rtdetr import coco_r50_640
from configs.rtdetr.architectures import architecture

EPOCHS = 60


def get_config(arg: str = "") -> ConfigDict:
    """The recipe; `arg` is the folder of prepared data."""
    config = coco_r50_640.get_config(arg)
    config.total = dict(epochs=EPOCHS)
    config.optimizer = dict(
        learning_rate=2e-4,
        weight_decay=1e-4,
        clip_norm=0.1,
        # Rises as the square, flat until epoch 34, half a cosine to half the rate, flat for two.
        schedule=dict(
            kind="warmup_stable_decay",
            warmup_updates=2000,
            warmup_power=2.0,
            decay_fraction=(EPOCHS - 34) / EPOCHS,
            decay_shape="cosine",
            tail_fraction=2 / EPOCHS,
            final_fraction=0.5,
        ),
        groups=(dict(name="backbone", learning_rate=2e-5),),
    )
    config.model = dict(architecture("deim_r50"), dtype="bfloat16")
    config.loss = dict(classification="mal", gamma=1.5)
    calm = 58 / EPOCHS
    data = dict(
        max_objects=300,  # four images in one have as many
        scale_phase=dict(start=0.0, stop=calm),
        augment=dict(
            strong=dict(start=4 / EPOCHS, stop=calm),
            mosaic=0.5,
            mixup=0.5,
            mixed=dict(start=4 / EPOCHS, stop=34 / EPOCHS),
        ),
    )
    config.update(data=data)
    return config

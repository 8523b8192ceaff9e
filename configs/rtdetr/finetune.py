"""Your own images, from weights that were trained on others.

    podvision prepare rtdetr --input DIR --output data/own
    podvision import rtdetr --from PATH --workdir runs/weights
    podvision train --config configs/rtdetr/finetune.py:data/own,runs/weights --workdir runs/own

`PATH` is a folder of transformers or a file of the authors; the size of the network follows the
weights if it is R50, else name it as a third word (`data/own,runs/weights,r18`). Classes with the
same name keep their weights, others begin anew. 50 epochs, batch 16; one GPU. Not yet run on one.
"""

from ml_collections import ConfigDict

from configs.rtdetr import coco_r50_640
from configs.rtdetr.architectures import architecture


def get_config(arg: str = "") -> ConfigDict:
    """The recipe; `arg` is "data,weights[,architecture]"."""
    folder, weights, name, *_ = [*arg.split(","), "", "", ""]
    config = coco_r50_640.get_config(folder or "data/own")
    config.total = dict(epochs=50)
    schedule = dict(
        kind="warmup_stable_decay",
        warmup_fraction=0.02,
        warmup_updates=None,
        decay_fraction=0.5,
        final_fraction=0.1,
    )
    config.update(optimizer=dict(schedule=schedule))
    # A small data set has few updates: the average must not remember the start.
    config.ema = dict(kind="warmup", end=0.999, tau=200.0)
    config.model = dict(architecture(name or "r50"), dtype="bfloat16")
    calm = dict(start=0.0, stop=0.9)
    config.update(data=dict(scale_phase=calm, augment=dict(strong=calm)))
    config.update(checkpoint=dict(init_from=weights or "runs/weights"))
    return config

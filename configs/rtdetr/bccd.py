"""Blood cells (BCCD: 364 photographs, 3 classes): a real held-out result.

    podvision prepare rtdetr --input bccd --output data/bccd
    podvision train --config configs/rtdetr/bccd.py:small,data/bccd --workdir runs/bccd

`small` learns from scratch on two CPU cores, in about ten minutes: 600 updates of 8 images gave
AP50 0.77 on the test split (`--config.data.eval_split=test`, one seed). `full` is R18 for one GPU,
from a pretrained backbone where `--config.checkpoint.init_from` names one; not yet run.
"""

from ml_collections import ConfigDict

from configs.rtdetr.architectures import architecture


def get_config(arg: str = "") -> ConfigDict:
    """The recipe; `arg` is "small" or "full", then the folder of prepared data."""
    name, folder, *_ = [*arg.split(","), "", ""]
    config = ConfigDict()
    config.system = "rtdetr"
    config.batch_size = 8
    config.data = dict(folder=folder or "data/bccd", max_objects=40, resize="letterbox")
    config.evaluation = dict(batch_size=8)
    if (name or "small") == "small":
        config.total = dict(updates=600)
        config.optimizer = dict(
            learning_rate=1e-3,
            weight_decay=1e-4,
            clip_norm=1.0,
            schedule=dict(kind="warmup_cosine", warmup_fraction=0.02, final_fraction=0.02),
        )
        config.ema = dict(kind="warmup", end=0.995, tau=300.0)
        config.model = architecture("small")
        # Cells have one size and no upright; a zoom-out would make platelets of 10 px.
        augment = dict(zoom_out=0.0, crop=0.5, vertical_flip=0.5)
        config.update(data=dict(size=(192, 256), augment=augment))
        config.update(evaluation=dict(every=dict(updates=600)))
        config.checkpoint = dict(every=dict(updates=200), best_metric="AP")
        config.loss = dict(denoising=dict(slots=60))
    elif name == "full":
        config.total = dict(epochs=120)
        config.model = architecture("r18")
    else:
        raise ValueError(f"bccd.py knows small and full, not {name!r}")
    return config

"""V-JEPA3D-S on OCT volumes of every manufacturer.

    podvision prepare jepa3d --input AI-READI --output data/oct
    podvision train --config configs/jepa3d/multi_domain.py --workdir runs/multi_domain

Meant for one v4-8 or one 80 GB GPU; for a v4-32 see v4_32.py. 150 epochs of 541 volumes are 2,535
updates of 32 volumes, about 5.8 TFLOP each: minutes to an hour of compute, whatever the loader can
deliver. Expected: skill above 0 (better than any constant of each token position) within the first
tenth and rising, RankMe far from 1. At this size it was neither run on an accelerator nor compiled
for one yet.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The recipe; `arg` is the folder of prepared data."""
    config = ConfigDict()
    config.system = "jepa3d"
    config.batch_size = 32
    config.accumulation = 2
    config.total = dict(epochs=150)
    config.optimizer = dict(
        learning_rate=1e-4,
        weight_decay=0.05,
        clip_norm=1.0,
        schedule=dict(kind="warmup_cosine", warmup_fraction=0.03, final_fraction=0.1),
    )
    config.ema = dict(kind="cosine", start=0.996, end=0.9995)
    config.mask_preset = "mask06"
    config.model = dict(
        volume=(64, 384, 384),
        patch=(4, 16, 16),
        encoder=dict(dim=384, depth=12, heads=6),
        predictor=dict(dim=192, depth=12, heads=6),
        dtype="bfloat16",
        # Norms, RoPE and GELU are computed again in the backward pass: a third of the memory.
        remat="save_matmuls",
    )
    config.data = dict(folder=arg or "data/oct")
    config.evaluation = dict(every=dict(epochs=5), batch_size=32)
    config.checkpoint = dict(every=dict(epochs=5), keep_latest=3, best_metric="skill_ranked")
    return config

"""A V-JEPA3D of the smoke size that reaches the best constants, on phantoms of 300 people.

    python benchmarks/jepa3d_quality.py --output runs/phantom

writes the phantoms, with disease, prepares them, trains this and probes what came of it.
Hardware: a laptop; 1,200 updates of 8 volumes of 16 x 64 x 64 voxels, 8 minutes on two busy cores.
Measured, one seed: `skill_position` from -1.21 to 0.02, `skill_retina` from -0.76 to -0.04, RankMe
from 55 to 12 of 96 (halved by update 400, nearly level after 800). The probe of 200 held-out
volumes, after and before training: outer loss 0.65 and 0.52, thickness R2 0.36 and 0.11, large
drusen 0.74 and 0.81, smaller ones near chance; of the voxels themselves 0.47, 0.47 and 0.60. So it
learns the layers and not the drusen. On phantoms with drusen of up to 0.06 mm and a smaller outer
loss, 1,600 updates gave a skill of 0.08 and 0.12 on the retina.
"""

from ml_collections import ConfigDict

from configs.jepa3d import smoke


def get_config(arg: str = "") -> ConfigDict:
    """The smoke recipe with a target encoder that moves slowly; `arg` is the folder of records."""
    config = smoke.get_config(arg or "data/phantom")
    config.total = dict(updates=1200)
    config.ema = dict(kind="cosine", start=0.998, end=0.9998)
    config.evaluation = dict(every=dict(updates=200), batch_size=8)
    config.checkpoint = dict(every=dict(updates=200), best_metric="skill_ranked")
    return config

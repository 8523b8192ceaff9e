"""The smallest V-JEPA3D that learns: phantoms of 300 people, on two CPU cores, in minutes.

    podvision demo jepa3d

writes the phantoms (`jepa3d.synthetic.write_tree`, with disease), prepares them and trains this.
Hardware: a laptop. 1,200 updates of 8 volumes of 16 x 64 x 64 voxels. MEASURED
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

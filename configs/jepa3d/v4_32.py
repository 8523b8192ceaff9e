"""V-JEPA3D-S on a TPU v4-32 (16 chips, 4 hosts): 8 volumes per chip, no accumulation.

    podvision train --config configs/jepa3d/v4_32.py --workdir gs://BUCKET/runs/v4_32

30,000 updates of 128 volumes, 2 mask sets and 3.9 TFLOP per volume. Not yet run on a pod. The whole
update was compiled by libtpu for this slice without one: 10.1 of 30.75 GiB per chip, the splash
kernel in every block, all-reduces the only traffic between chips; by the compiler's estimates at
least 0.58 s an update, so 5 hours at best (docs/performance.md; `make parity` compiles it again).
Parameters are replicated (0.4 GiB with moments and EMA); activations decide the memory.
"""

from ml_collections import ConfigDict

from configs.jepa3d import multi_domain


def get_config(arg: str = "") -> ConfigDict:
    """The multi-domain recipe at the size of a pod."""
    config = multi_domain.get_config(arg)
    config.batch_size = 128
    config.accumulation = 1
    config.total = dict(updates=30_000)
    config.update(optimizer=dict(learning_rate=1.25e-4))
    config.mask_preset = "default"
    config.loader = dict(workers=16, prefetch=3)
    config.evaluation = dict(every=dict(updates=1000), batch_size=128)
    config.checkpoint = dict(
        every=dict(updates=500), keep_latest=3, keep_every=5000, best_metric="skill_ranked"
    )
    return config

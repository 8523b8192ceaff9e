"""V-JEPA3D-S on the volumes of one manufacturer; compare with multi_domain.py.

    podvision train --config configs/jepa3d/single_domain.py --workdir runs/triton \\
        --config.data.scanners=topcon_triton

Hardware and expectations as in multi_domain.py. `podvision prepare` prints the scanner names.
"""

from ml_collections import ConfigDict

from configs.jepa3d import multi_domain


def get_config(arg: str = "") -> ConfigDict:
    """The multi-domain recipe, restricted to one scanner."""
    config = multi_domain.get_config(arg)
    config.update(data=dict(scanners=("topcon_triton",)))
    return config

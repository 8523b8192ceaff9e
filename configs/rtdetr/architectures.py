"""Networks by name, as settings of `config.model`; the published ones are those of the paper."""

from __future__ import annotations

from typing import Any

_BASIC = dict(block="basic", freeze_stem=False, freeze_norm=False)


def architecture(name: str) -> dict[str, Any]:
    """Settings of a network.

    Raises:
      ValueError: an unknown name; lists the known ones.
    """
    networks: dict[str, dict[str, Any]] = {
        # Published, largest last; 20, 31, 36, 43 and 77 million parameters.
        "r18": dict(
            backbone=dict(_BASIC, depths=(2, 2, 2, 2)),
            encoder=dict(expansion=0.5),
            decoder=dict(layers=3),
        ),
        "r34": dict(
            backbone=dict(_BASIC, depths=(3, 4, 6, 3)),
            encoder=dict(expansion=0.5),
            decoder=dict(layers=4),
        ),
        "r50_m": dict(encoder=dict(expansion=0.5)),
        "r50": {},
        "r101": dict(
            backbone=dict(depths=(3, 4, 23, 3)), encoder=dict(width=384, feed_forward=2048)
        ),
        # R50 as DEIM trains it: everything learns, SiLU, one more layer for positions.
        "deim_r50": dict(
            backbone=dict(freeze_stem=False, freeze_norm=False),
            decoder=dict(activation="silu", position_hidden=(256, 256)),
        ),
        # For two CPU cores: about one million parameters, and three million.
        "tiny": dict(
            backbone=dict(
                depths=(1, 1, 1, 1),
                stem=(16, 16, 32),
                widths=(16, 32, 48, 64),
                freeze_stem=False,
                freeze_norm=False,
            ),
            encoder=dict(width=64, heads=4, feed_forward=128, blocks=1),
            decoder=dict(
                width=64,
                heads=4,
                feed_forward=128,
                layers=2,
                queries=50,
                position_hidden=(128,),
            ),
        ),
        "small": dict(
            backbone=dict(
                _BASIC, depths=(1, 1, 2, 2), stem=(16, 16, 32), widths=(32, 64, 128, 192)
            ),
            encoder=dict(width=96, heads=4, feed_forward=256, blocks=1),
            decoder=dict(
                width=96,
                heads=4,
                feed_forward=256,
                layers=3,
                queries=100,
                position_hidden=(192,),
            ),
        ),
    }
    if name not in networks:
        raise ValueError(f"no network is called {name!r}; known are {', '.join(networks)}")
    return networks[name]

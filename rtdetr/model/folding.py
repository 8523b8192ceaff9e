"""A network for use only: norms folded into the convolutions before them, RepVGG blocks made one.

A norm in use is x · factor + shift, by channel, and a convolution is linear, so the kernel takes
the factor and the shift becomes a bias; a 1 × 1 kernel is the middle of a 3 × 3 one (Ding et al.
2021, "RepVGG", 3.3). `detect` runs a folded network as it runs any other, with `train=False`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rtdetr.model.layers import EPSILON

Arrays = Mapping[str, Any]
SIDE = 3  # of the kernel that a RepVGG block becomes


def folded(params: Arrays, statistics: Arrays) -> dict[str, Any]:
    """The parameters of a network that needs no statistics.

    Args:
      params, statistics: of a network, on the host.

    Returns:
      Parameters, fp32; the statistics that go with them are `{}`.

    Raises:
      ValueError: the network is folded already.
    """
    if not statistics:
        raise ValueError("the network has no norms to fold; give one that was not folded")
    return _folded(params, statistics)


def _folded(params: Arrays, statistics: Arrays) -> dict[str, Any]:
    if "norm" in statistics:
        return _convolution(params, statistics["norm"])
    tree = {
        name: _folded(value, statistics[name]) if name in statistics else value
        for name, value in params.items()
    }
    if tree.keys() == {"conv_1", "conv_3"}:
        return {"one": _joined(tree["conv_3"], tree["conv_1"])}
    return tree


def _convolution(params: Arrays, norm: Arrays) -> dict[str, np.ndarray]:
    """Kernel and bias of a convolution and its norm."""
    affine = norm if "scale" in norm else params["norm"]  # of a frozen norm, or a trained one
    # float64: rounded once, at the end.
    scale, bias = (np.asarray(affine[name], np.float64) for name in ("scale", "bias"))
    factor = scale / np.sqrt(np.asarray(norm["var"], np.float64) + EPSILON)
    shift = bias - np.asarray(norm["mean"], np.float64) * factor
    kernel = np.asarray(params["kernel"], np.float64) * factor.reshape(1, 1, 1, -1)
    return {"kernel": kernel.astype(np.float32), "bias": shift.astype(np.float32)}


def _joined(wide: Arrays, narrow: Arrays) -> dict[str, np.ndarray]:
    """One convolution that is the sum of a 3 × 3 and a 1 × 1."""
    kernel, middle = wide["kernel"].copy(), SIDE // 2
    kernel[middle, middle] += narrow["kernel"][0, 0]
    return {"kernel": kernel, "bias": wide["bias"] + narrow["bias"]}

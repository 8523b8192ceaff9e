"""Names of timm's classifiers `resnet50d` and `resnet101d`, whose body is our backbone.

Same layers, strides and paddings (He et al. 2019, "Bag of Tricks", variant D); what classifies,
`fc`, is left aside. They were trained on pixels standardized by channel. Their kin of basic blocks
(`resnet18d`, `resnet34d`) have no projection in the first stage, and fit no published detector.
"""

from __future__ import annotations

import re

from rtdetr.weights.spellings import Tensors
from training.errors import CheckpointError

_BODY = "model.backbone.model"
# The stem is a list: convolution, norm, ReLU, and again; the last norm stands beside it.
_STEM = {
    "conv1.0": "0.convolution",
    "conv1.1": "0.normalization",
    "conv1.3": "1.convolution",
    "conv1.4": "1.normalization",
    "conv1.6": "2.convolution",
    "bn1": "2.normalization",
}
_PARTS = {"conv": "convolution", "bn": "normalization"}
_SHORTCUT = {"1": "convolution", "2": "normalization"}


def is_classifier(names: list[str]) -> bool:
    """Whether arrays are named as in torchvision's and timm's residual networks."""
    return any(name.startswith("layer1.0.") for name in names)


def from_classifier(tensors: Tensors, where: str) -> Tensors:
    """The arrays under the names of `rtdetr.weights.names`; one whose name is unknown keeps it.

    Args:
      where: the file, for messages.

    Raises:
      CheckpointError: the network is no variant D.
    """
    if "conv1.0.weight" not in tensors:
        raise CheckpointError(
            f"the weights in {where} are of a residual network whose stem is one convolution, and "
            "the backbone here has three (variant D); give those of timm's resnet50d, resnet101d "
            "or of the authors' ResNet-vd"
        )
    return {
        _renamed(name): value
        for name, value in tensors.items()
        if not name.endswith("num_batches_tracked")
    }


def _renamed(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    if module in _STEM:
        return f"{_BODY}.embedder.embedder.{_STEM[module]}.{leaf}"
    if m := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn)(\d)", module):
        layer = f"{int(m[1]) - 1}.layers.{m[2]}.layer.{int(m[4]) - 1}"
        return f"{_BODY}.encoder.stages.{layer}.{_PARTS[m[3]]}.{leaf}"
    if m := re.fullmatch(r"layer(\d)\.0\.downsample\.([12])", module):
        stage = int(m[1]) - 1
        # Where it averages first, the projection is number 1.
        part = "shortcut.1" if stage > 0 else "shortcut"
        return f"{_BODY}.encoder.stages.{stage}.layers.0.{part}.{_SHORTCUT[m[2]]}.{leaf}"
    # Under the backbone's name if it is of the body, so that it counts as left over.
    return name if name.startswith("fc.") else f"model.backbone.{name}"

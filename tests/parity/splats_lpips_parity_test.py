"""Live comparison with the Python package `lpips`, its own channel weights and a random network.

The package needs a torchvision built for the same torch, so the parity extra leaves both out:
install `lpips==0.1.4` and that torchvision by hand. `tests/splats/lpips_test.py` holds distances of
the package that need neither.
"""

from __future__ import annotations

import numpy as np
import pytest

from splats.config import MetricsConfig
from splats.metrics.lpips import VARIANTS
from splats.metrics.lpips_weights import load_lpips
from tests.splats.random_lpips import image_pairs

pytestmark = pytest.mark.parity
pytest.importorskip("lpips", reason="the package lpips is not installed")
pytest.importorskip("safetensors.torch", reason="safetensors is not installed")


@pytest.fixture(scope="module", params=["alex", "vgg"])
def reference(request, tmp_path_factory):
    """Network, the package's model, and its file written as our documentation says."""
    import lpips
    import torch
    from safetensors.torch import save_model

    torch.manual_seed(3)
    model = lpips.LPIPS(net=request.param, pnet_rand=True, verbose=False).eval()
    path = tmp_path_factory.mktemp("lpips") / "weights.safetensors"
    save_model(model, str(path))
    return request.param, model, path


def test_distances_equal_the_package(reference):
    """Also proves that the digests of the channel weights are those of the package."""
    import torch

    network, model, path = reference
    for name, (of, scaled) in VARIANTS.items():
        if of != network:
            continue
        measure = load_lpips(MetricsConfig(name, str(path)), np.array([[64, 64]]))
        assert measure is not None
        for pair in image_pairs(network):
            images = [torch.tensor(image).permute(2, 0, 1)[None] for image in pair]
            with torch.no_grad():
                expected = float(model(*images, normalize=scaled))
            assert measure(*pair) == pytest.approx(expected, rel=2e-4)

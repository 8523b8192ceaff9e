"""G-HOP's networks in PyTorch, written from their description, and ours with converted weights.

A state dict is fabricated from them and saved as a Lightning checkpoint is; what comes out of both
must agree. The released weights were not at hand.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.prior.ghop_names import AUTOENCODER, TEXT, UNET
from hand_object.prior.grid import FULL_GRID
from hand_object.prior.import_ghop import CARRIED, converted
from hand_object.prior.model.unet import Unet, UnetConfig
from hand_object.prior.model.vqvae import Vqvae, VqvaeConfig
from hand_object.prior.trained_prior import PriorForm
from training.torch_file import read_torch_file, state_dict

torch = pytest.importorskip("torch")
from tests.parity import ghop_torch  # noqa: E402 - needs torch

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("quick_compilation")]
NARROW_UNET = UnetConfig(
    width=8,
    multiples=(1, 2, 3),
    blocks=2,
    attended=(1, 2),
    head=8,
    groups=4,
    dropout=0.0,
    condition=6,
)
NARROW_VQVAE = VqvaeConfig(width=8, multiples=(1, 2, 4), codes=32, channels=3, groups=4)
FORM = PriorForm(FULL_GRID, NARROW_UNET, NARROW_VQVAE)


def randomized(module):
    """Layers that start at zero would hide their neighbors."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.15)
    return module.eval()


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return randomized(ghop_torch.Unet(NARROW_UNET)), randomized(ghop_torch.Vqvae(NARROW_VQVAE))


@pytest.fixture(scope="module")
def checkpoint(networks, tmp_path_factory) -> Path:
    """As Lightning saves one: with settings of a package that is not trusted, and CLIP's arrays."""
    package, name = types.ModuleType("omegaconf"), "omegaconf"
    settings = type("DictConfig", (dict,), {"__module__": name})
    package.DictConfig = settings  # type: ignore[attr-defined]
    tensors = {f"{UNET}{key}": value for key, value in networks[0].state_dict().items()}
    tensors |= {f"{AUTOENCODER}{key}": value for key, value in networks[1].state_dict().items()}
    tensors[f"{TEXT}weight"] = torch.zeros(3)
    path = tmp_path_factory.mktemp("ghop") / "last.ckpt"
    sys.modules[name] = package
    try:
        torch.save({"state_dict": tensors, "hyper_parameters": settings(a=1), "epoch": 3}, path)
    finally:
        del sys.modules[name]
    return path


@pytest.fixture(scope="module")
def params(checkpoint):
    tensors = state_dict(read_torch_file(checkpoint, CARRIED), checkpoint)
    kept = {name: value for name, value in tensors.items() if not name.startswith(TEXT)}
    return converted(kept, FORM, checkpoint)


def as_torch(array):
    """[B, D, H, W, C] -> [B, C, D, H, W]."""
    return torch.from_numpy(np.asarray(array).transpose(0, 4, 1, 2, 3).copy())


def test_unet_says_the_same_in_both(networks, params, new_key):
    x = jax.random.normal(new_key(), (2, 4, 8, 4, 23))
    steps, condition = np.array([3, 777]), jax.random.normal(new_key(), (2, 6))
    with torch.no_grad():
        wanted = networks[0](
            as_torch(x), torch.from_numpy(steps), torch.from_numpy(np.array(condition))
        )
    apply = jax.jit(lambda p, *arguments: Unet(NARROW_UNET).apply({"params": p}, *arguments))
    found = apply(params["unet"], x, jnp.asarray(steps), condition)
    wanted = wanted.numpy().transpose(0, 2, 3, 4, 1)
    # Some thousand float32 products in turn, of values as large as the result's.
    np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())
    assert np.abs(wanted).max() > 0.1


def test_autoencoder_says_the_same_in_both(networks, params, new_key):
    x = jax.random.normal(new_key(), (1, 8, 16, 8, 1))
    network = Vqvae(NARROW_VQVAE)
    with torch.no_grad():
        latent = networks[1].encode(as_torch(x))
        back = networks[1].decode(latent)

    @jax.jit
    def both(p, x, z):
        own = {"params": p}
        return network.apply(own, x, method="encode"), network.apply(own, z, method="decode")

    wanted_latent = latent.numpy().transpose(0, 2, 3, 4, 1)
    found_latent, found_back = both(params["autoencoder"], x, jnp.asarray(wanted_latent))
    wanted_back = back.numpy().transpose(0, 2, 3, 4, 1)
    for found, wanted in ((found_latent, wanted_latent), (found_back, wanted_back)):
        np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())

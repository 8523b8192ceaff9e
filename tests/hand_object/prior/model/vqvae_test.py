"""The autoencoder has the size of the original; a narrow one runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.prior.import_ghop import FULL
from hand_object.prior.model.vqvae import Vqvae, VqvaeConfig, quantized

pytestmark = pytest.mark.usefixtures("quick_compilation")
NARROW = VqvaeConfig(width=8, multiples=(1, 2), codes=16, channels=2, groups=4)


def test_full_size_encodes_64_cubed_to_3_channels_of_16_cubed():
    network, grid = Vqvae(VqvaeConfig()), jnp.zeros((1, 64, 64, 64, 1))
    made = FULL.shapes()["autoencoder"]
    encoder = sum(leaf.size for leaf in jax.tree.leaves(made["encoder"]))
    assert encoder == pytest.approx(11.5e6, rel=0.01)
    assert made["codebook"].shape == (8192, 3)
    latent = jax.eval_shape(lambda p: network.apply({"params": p}, grid, method="encode"), made)
    assert latent.shape == (1, 16, 16, 16, 3)
    back = jax.eval_shape(
        lambda p, z: network.apply({"params": p}, z, method="decode"), made, latent
    )
    assert back.shape == grid.shape


@pytest.mark.slow
def test_a_narrow_one_has_a_gradient_from_its_result_to_its_first_layer(new_key):
    """Straight through the codebook."""
    network, grid = Vqvae(NARROW), jax.random.normal(new_key(), (1, 4, 4, 4, 1))
    params = jax.jit(network.init)(new_key(), grid)["params"]

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.sum(jnp.square(network.apply({"params": p}, grid))))(params)

    found = gradient(params)
    assert np.abs(found["encoder"]["first"]["kernel"]).max() > 0
    assert np.abs(found["decoder"]["last"]["kernel"]).max() > 0


def test_quantized_is_the_nearest_code_and_passes_gradients(new_key):
    codes = jax.random.normal(new_key(), (16, 2))
    z = jax.random.normal(new_key(), (1, 2, 2, 2, 2))
    distances = np.linalg.norm(np.asarray(z)[..., None, :] - np.asarray(codes), axis=-1)
    wanted = np.asarray(codes)[distances.argmin(axis=-1)]
    np.testing.assert_allclose(quantized(z, codes), wanted, atol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(3.0 * quantized(x, codes)))(z)
    np.testing.assert_allclose(slope, 3.0)

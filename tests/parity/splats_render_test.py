"""Live comparison with gsplat's torch reference functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.render import harmonics, projection
from tests.splats.render.scenes import front_camera, random_gaussians

pytestmark = pytest.mark.parity
WIDTH, HEIGHT, COUNT = 160, 120, 200


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("torch")
    pytest.importorskip("gsplat")
    return pytest.importorskip("gsplat.cuda._torch_impl")


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_projection_and_its_derivative_equal_gsplat(reference, model):
    import torch

    gaussians, camera = random_gaussians(COUNT, seed=11), front_camera(WIDTH, HEIGHT)
    arrays = [gaussians["means"], gaussians["quats"], jnp.exp(gaussians["scales"])]
    names = ("means2d", "depths", "conics", "compensations")

    def ours(*inputs):
        return projection.project(*inputs, camera, width=WIDTH, height=HEIGHT, camera_model=model)

    tensors = [torch.tensor(np.array(a), requires_grad=True) for a in arrays]
    covariances, _ = reference._quat_scale_to_covar_preci(
        torch.nn.functional.normalize(tensors[1], dim=-1), tensors[2], True, False, triu=False
    )
    intrinsics = torch.eye(3)
    intrinsics[0, 0], intrinsics[1, 1] = float(camera.fx), float(camera.fy)
    intrinsics[0, 2], intrinsics[1, 2] = float(camera.cx), float(camera.cy)
    radii, means2d, depths, conics, compensations = reference._fully_fused_projection(
        tensors[0],
        covariances,
        torch.tensor(np.array(camera.world_to_camera))[None],
        intrinsics[None],
        WIDTH,
        HEIGHT,
        calc_compensations=True,
        camera_model=model,
    )
    expected = dict(zip(names, (means2d, depths, conics, compensations)))
    seen = (radii[0] > 0).all(dim=-1).numpy()
    assert seen.sum() > 30
    found = ours(*arrays)
    np.testing.assert_array_equal(np.asarray(found.visible), seen)
    assert np.abs(np.asarray(found.radii) - radii[0].numpy())[seen].max() <= 1

    random = np.random.default_rng(0)
    cotangents = {}
    for name in names:
        value = np.asarray(getattr(found, name))
        np.testing.assert_allclose(
            value[seen], expected[name][0].detach().numpy()[seen], rtol=1e-4, atol=1e-4
        )
        mask = seen.reshape(-1, *[1] * (value.ndim - 1))
        cotangents[name] = (random.normal(size=value.shape) * mask).astype(np.float32)
    total = sum((expected[n][0] * torch.tensor(cotangents[n])).sum() for n in names)
    total.backward()
    gradients = jax.grad(
        lambda *a: sum(jnp.sum(getattr(ours(*a), n) * cotangents[n]) for n in names), (0, 1, 2)
    )(*arrays)
    for gradient, tensor in zip(gradients, tensors):
        scale = tensor.grad.abs().max().item()
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("degree", range(5))
def test_harmonics_equal_gsplat(reference, degree):
    import torch

    random = np.random.default_rng(degree)
    directions = random.normal(size=(50, 3)).astype(np.float32)
    coefficients = random.normal(size=(50, 25, 3)).astype(np.float32)
    expected = reference._spherical_harmonics(
        degree, torch.tensor(directions), torch.tensor(coefficients)
    )
    found = harmonics.evaluate(jnp.asarray(directions), jnp.asarray(coefficients), degree)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)

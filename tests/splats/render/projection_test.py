"""Projection against gsplat's torch reference, closed forms and degenerate inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.render.camera import Camera
from splats.render.projection import project, rotation_matrices
from tests.splats.render.scenes import FIXTURES, front_camera, random_gaussians

OUTPUTS = ("means2d", "depths", "conics", "compensations")


@pytest.fixture(scope="module", params=["subset", pytest.param("full", marks=pytest.mark.slow)])
def reference(request):
    if request.param == "subset":
        return dict(np.load(FIXTURES / "gsplat_subset.npz"))
    root = request.getfixturevalue("data_root")
    path = root / "splats/reference/gsplat_torch_parity.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    return dict(np.load(path))


def project_reference(reference, model, means, quats, scales, viewmats):
    """Outputs for the reference's three cameras, stacked on axis 0."""
    intrinsics = reference["Ks"]
    cameras = Camera(
        viewmats,
        *(jnp.asarray(intrinsics[:, i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))),
    )
    size = {"width": int(reference["width"]), "height": int(reference["height"])}
    return jax.vmap(
        lambda camera: project(means, quats, scales, camera, camera_model=model, **size)
    )(cameras)


def inputs_of(reference):
    return tuple(jnp.asarray(reference[key]) for key in ("means", "quats", "scales", "viewmats"))


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_values_match_gsplat_torch(reference, model):
    ours = project_reference(reference, model, *inputs_of(reference))
    seen = (reference[f"{model}_radii"] > 0).all(axis=-1)
    np.testing.assert_array_equal(np.asarray(ours.visible)[seen], True)
    assert np.mean(np.asarray(ours.visible) != seen) < 0.002
    radii_error = np.abs(np.asarray(ours.radii)[seen] - reference[f"{model}_radii"][seen])
    assert radii_error.max() <= 1
    for name in OUTPUTS:
        np.testing.assert_allclose(
            np.asarray(getattr(ours, name))[seen],
            reference[f"{model}_{name}"][seen],
            rtol=1e-4,
            atol=1e-4,
            err_msg=name,
        )


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_gradients_match_gsplat_torch(reference, model):
    def weighted(*inputs):
        outputs = project_reference(reference, model, *inputs)
        return sum(
            jnp.sum(getattr(outputs, name) * reference[f"{model}_ct_{name}"]) for name in OUTPUTS
        )

    gradients = jax.grad(weighted, argnums=(0, 1, 2, 3))(*inputs_of(reference))
    for name, gradient in zip(("means", "quats", "scales", "viewmats"), gradients):
        expected = reference.get(f"{model}_grad_{name}")
        if expected is None:
            continue
        if name == "viewmats":
            gradient, expected = gradient[:, :3], expected[:, :3]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            gradient, expected, rtol=1e-4, atol=1e-4 * max(1.0, scale), err_msg=name
        )


def test_factored_covariance_equals_the_textbook_product():
    gaussians = random_gaussians(50)
    gaussians["means"] = gaussians["means"] * jnp.array([[3.0, 3.0, 1.0]])  # also out of the image
    camera = front_camera(120, 80)
    scales = jnp.exp(gaussians["scales"])
    ours = project(gaussians["means"], gaussians["quats"], scales, camera, width=120, height=80)
    rotations = np.asarray(rotation_matrices(gaussians["quats"]), np.float64)
    pose = np.asarray(camera.world_to_camera, np.float64)
    for i in range(50):
        point = pose[:3, :3] @ np.asarray(gaussians["means"][i], np.float64) + pose[:3, 3]
        x, y, z = point
        spread = rotations[i] @ np.diag(np.asarray(scales[i], np.float64) ** 2) @ rotations[i].T
        u = np.clip(x / z, -(camera.cx + 0.15 * 120) / camera.fx,
                    (120 - camera.cx + 0.15 * 120) / camera.fx)  # fmt: skip
        v = np.clip(y / z, -(camera.cy + 0.15 * 80) / camera.fy,
                    (80 - camera.cy + 0.15 * 80) / camera.fy)  # fmt: skip
        jacobian = np.array(
            [[camera.fx / z, 0, -camera.fx * u / z], [0, camera.fy / z, -camera.fy * v / z]]
        )
        local = jacobian @ pose[:3, :3]
        inverse = np.linalg.inv(local @ spread @ local.T + 0.3 * np.eye(2))
        expected = (inverse[0, 0], inverse[0, 1], inverse[1, 1])
        np.testing.assert_allclose(ours.conics[i], expected, rtol=2e-4, atol=1e-6)


def test_extent_is_where_alpha_falls_to_one_in_255():
    gaussians = random_gaussians(20)
    camera = front_camera(120, 80)
    opacity = jnp.linspace(0.01, 1.0, 20)
    ours = project(
        gaussians["means"], gaussians["quats"], jnp.exp(gaussians["scales"]), camera,
        width=120, height=80, opacities=opacity,
    )  # fmt: skip
    seen = np.asarray(ours.visible)
    a, b, c = np.asarray(ours.conics, np.float64).T
    half_width = np.asarray(ours.extents, np.float64)[:, 0]
    # On the vertical line x = half width the smallest sigma is 0.5 (a - b^2 / c) x^2.
    peak = np.asarray(opacity) * np.exp(-0.5 * (a - b * b / c) * half_width**2)
    np.testing.assert_allclose(peak[seen] * 255, 1.0, rtol=1e-3)
    assert not np.asarray(
        project(
            gaussians["means"], gaussians["quats"], jnp.exp(gaussians["scales"]), camera,
            width=120, height=80, opacities=jnp.full(20, 0.0039),
        ).visible
    ).any()  # fmt: skip


def test_compensation_is_small_for_points_and_one_for_large_gaussians():
    camera = front_camera(120, 80)
    means = jnp.zeros((2, 3))
    scales = jnp.array([[1e-4] * 3, [1.0] * 3])
    ours = project(means, jnp.ones((2, 4)), scales, camera, width=120, height=80)
    assert ours.compensations[0] == pytest.approx(0.005, rel=1e-5)
    assert 0.999 < ours.compensations[1] <= 1.0


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_degenerate_gaussians_have_finite_values_and_gradients(model):
    means = jnp.array(
        [[0, 0, 0], [0, 0, -4.0], [0, 0, -9.0], [1e6, 0, 0], [0, 0, 1e12], [-0.1, 0.05, 0.0]]
    )
    quats = jnp.array([[0.0] * 4, [1e-20] * 4, [1, 0, 0, 0], [1, 2, 3, 4], [0, 0, 0, 1], [0.0] * 4])
    scales = jnp.array([[1e-12] * 3, [1.0] * 3, [1.0] * 3, [1e3] * 3, [1.0] * 3, [0.0, 0.0, 1.0]])
    camera = front_camera(120, 80)

    def total(means, quats, scales):
        ours = project(means, quats, scales, camera, width=120, height=80, camera_model=model)
        picked = ours.visible[:, None]
        return sum(
            jnp.sum(jnp.where(picked, getattr(ours, n).reshape(6, -1), 0.0)) for n in OUTPUTS
        )

    value, gradients = jax.value_and_grad(total, argnums=(0, 1, 2))(means, quats, scales)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


def test_zero_quaternion_is_the_identity():
    np.testing.assert_array_equal(rotation_matrices(jnp.zeros((1, 4)))[0], np.eye(3))


def test_gaussians_outside_of_the_depth_range_are_culled():
    means = jnp.array([[0.0, 0, -3.995], [0, 0, -3.9], [0, 0, 6.0], [0, 0, 7.0]])
    ours = project(
        means, jnp.ones((4, 4)), jnp.full((4, 3), 0.1), front_camera(120, 80),
        width=120, height=80, near=0.05, far=10.5,
    )  # fmt: skip
    np.testing.assert_array_equal(ours.visible, [False, True, True, False])
    np.testing.assert_array_equal(ours.radii[0], 0)

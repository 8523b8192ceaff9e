"""The whole renderer: gsplat's CUDA images, probes, transforms of JAX, dead rows, overflow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.render import Camera, RenderSettings, render
from tests.splats.render.scenes import brush_case, front_camera, make_camera, random_gaussians
from training.errors import ConfigError

WIDTH, HEIGHT = 40, 30
RENDER = jax.jit(render, static_argnums=2)
SETTINGS = RenderSettings(WIDTH, HEIGHT, pair_capacity=3000, backend="xla")


@pytest.fixture(scope="module")
def gaussians():
    return random_gaussians(60)


@pytest.mark.parametrize("name", ["tiny", "basic"])
@pytest.mark.parametrize("tile_size", [8, 16])
def test_images_match_gsplats_cuda_kernels(name, tile_size):
    gaussians, camera, expected = brush_case(name)
    height, width = expected.shape[:2]
    settings = RenderSettings(width, height, 2000, tile_size=tile_size, backend="xla")
    output = RENDER(gaussians, camera, settings)
    np.testing.assert_allclose(output.image, expected[..., :3], atol=2e-6)
    np.testing.assert_allclose(output.alpha, expected[..., 3], atol=2e-6)
    assert not bool(output.overflow)


def test_probe_gradients_are_the_screen_gradients(gaussians):
    camera = front_camera(WIDTH, HEIGHT)
    zeros = jnp.zeros((60, 2))
    weights = jax.random.normal(jax.random.key(2), (HEIGHT, WIDTH, 3))

    def value(gaussians, probe, absolute):
        output = RENDER(gaussians, camera, SETTINGS, means2d_probe=probe, absgrad_probe=absolute)
        return jnp.sum(output.image * weights), output

    gradients, output = jax.grad(value, argnums=(1, 2), has_aux=True)(gaussians, zeros, zeros)
    signed, absolute = (np.asarray(g) for g in gradients)
    hidden = ~np.asarray(output.visible)
    assert np.all(signed[hidden] == 0) and np.all(absolute[hidden] == 0)
    assert np.all(absolute >= np.abs(signed) - 1e-5) and absolute.max() > 0
    # Moving a mean along a camera axis moves its image: both gradients must tell the same story.
    flat = {**gaussians, "shN": gaussians["shN"][:, :0]}
    signed, means = jax.grad(lambda p, m: value({**flat, "means": m}, p, None)[0], argnums=(0, 1))(
        zeros, flat["means"]
    )
    pose = np.asarray(camera.world_to_camera)
    local = np.asarray(means) @ pose[:3, :3].T
    depths = (np.asarray(flat["means"]) @ pose[:3, :3].T + pose[:3, 3])[:, 2]
    assert np.corrcoef(local[:, 0], np.asarray(signed)[:, 0] / depths)[0, 1] > 0.9


@pytest.mark.slow
def test_vmap_and_scan_over_cameras_equal_single_views(gaussians):
    cameras = [front_camera(WIDTH, HEIGHT), make_camera(
        np.array([[1, 0, 0, 0.3], [0, 1, 0, 0.1], [0, 0, 1, 3.5], [0, 0, 0, 1]]), 30, 31, 20, 15,
    )]  # fmt: skip
    stacked: Camera = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cameras)

    def value(gaussians, camera):
        return jnp.sum(RENDER(gaussians, camera, SETTINGS).image ** 2)

    single = [jax.value_and_grad(value)(gaussians, camera) for camera in cameras]
    batched = jax.jit(jax.vmap(jax.value_and_grad(value), in_axes=(None, 0)))(gaussians, stacked)
    scanned = jax.jit(
        lambda g, c: jax.lax.scan(lambda _, one: (0, jax.value_and_grad(value)(g, one)), 0, c)[1]
    )(gaussians, stacked)
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *single)
    for found in (batched, scanned):
        jax.tree.map(
            lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-4 * np.abs(e).max()),
            found,
            expected,
        )


def test_dead_rows_are_not_drawn_and_get_zero_gradients(gaussians):
    camera = front_camera(WIDTH, HEIGHT)
    alive = jnp.arange(60) % 2 == 0
    dead = {k: jnp.where(alive.reshape(-1, *[1] * (v.ndim - 1)), v, 0.0)
            for k, v in gaussians.items()}  # fmt: skip

    def value(gaussians, alive):
        output = RENDER({**gaussians, "alive": alive}, camera, SETTINGS)
        return jnp.sum(output.image**2), output

    (_, output), gradients = jax.value_and_grad(value, has_aux=True)(dead, alive)
    subset = {k: v[::2] for k, v in gaussians.items()}
    expected = RENDER(subset, camera, SETTINGS)
    np.testing.assert_allclose(output.image, expected.image, atol=1e-6)
    assert not np.asarray(output.visible)[1::2].any()
    for gradient in gradients.values():
        assert np.isfinite(gradient).all() and np.all(np.asarray(gradient)[1::2] == 0)


def test_degenerate_gaussians_keep_image_and_gradients_finite(gaussians):
    camera = front_camera(WIDTH, HEIGHT)
    means = (
        gaussians["means"]
        .at[:4]
        .set(jnp.array([[0, 0, -4.0], [0, 0, -8.0], [0, 0, -3.98], [1e8, 0, 0]]))
    )
    odd = {
        **gaussians,
        "means": means,
        "quats": gaussians["quats"].at[4:8].set(0.0),
        "scales": gaussians["scales"].at[8:12].set(-40.0).at[12:14].set(6.0),
        "opacities": gaussians["opacities"].at[14:18].set(60.0).at[18:20].set(-60.0),
    }

    def value(gaussians):
        output = RENDER(gaussians, camera, RenderSettings(WIDTH, HEIGHT, 3000, antialiased=True))
        return jnp.sum(output.image**2) + jnp.sum(output.alpha)

    result, gradients = jax.value_and_grad(value)(odd)
    assert np.isfinite(result)
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all(), name


def test_overflow_is_flagged_and_growing_to_the_need_gives_the_full_image(gaussians):
    camera = front_camera(WIDTH, HEIGHT)
    full = RENDER(gaussians, camera, SETTINGS)
    need = int(full.pairs_needed)
    short = RENDER(gaussians, camera, RenderSettings(WIDTH, HEIGHT, need - 1, backend="xla"))
    exact = RENDER(gaussians, camera, RenderSettings(WIDTH, HEIGHT, need, backend="xla"))
    assert bool(short.overflow) and int(short.pairs_needed) == need
    assert np.isfinite(short.image).all()
    assert not bool(exact.overflow)
    np.testing.assert_allclose(exact.image, full.image, atol=1e-6)


def test_expected_depth_of_a_wall_is_its_distance():
    gaussians = random_gaussians(40)
    camera = make_camera(np.eye(4), 30, 30, WIDTH / 2, HEIGHT / 2)
    gaussians["means"] = gaussians["means"].at[:, 2].set(5.0)
    settings = RenderSettings(WIDTH, HEIGHT, 3000, render_depth=True)
    output = RENDER(gaussians, camera, settings)
    seen = np.asarray(output.alpha) > 0.01
    assert seen.any() and output.image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(np.asarray(output.depth)[seen], 5.0, rtol=1e-5)


def test_antialiasing_dims_gaussians_smaller_than_a_pixel():
    gaussians = random_gaussians(1)
    gaussians = {
        **gaussians,
        "means": jnp.zeros((1, 3)),
        "scales": jnp.full((1, 3), -5.0),
        "opacities": jnp.array([3.0]),
        "sh0": jnp.ones((1, 1, 3)),
    }
    camera = front_camera(WIDTH, HEIGHT)
    plain = RENDER(gaussians, camera, SETTINGS)
    filtered = RENDER(gaussians, camera, RenderSettings(WIDTH, HEIGHT, 100, antialiased=True))
    assert 0 < float(filtered.alpha.max()) < 0.5 * float(plain.alpha.max())


def test_background_shows_where_nothing_is_drawn(gaussians):
    background = jnp.array([0.2, 0.4, 0.6])
    black = RENDER(gaussians, front_camera(WIDTH, HEIGHT), SETTINGS)
    colored = RENDER(gaussians, front_camera(WIDTH, HEIGHT), SETTINGS, background=background)
    expected = black.image + (1 - black.alpha)[:, :, None] * background[None, None, :]
    np.testing.assert_allclose(colored.image, expected, atol=1e-6)


@pytest.mark.parametrize(
    "change, name",
    [
        ({"tile_size": 12}, "tile_size 12"),
        ({"backend": "cuda"}, "backend 'cuda'"),
        ({"camera_model": "wide"}, "camera_model 'wide'"),
        ({"width": 0}, "render size"),
        ({"pair_capacity": 0}, "pair_capacity"),
        ({"chunk": -1}, "chunk"),
    ],
)
def test_impossible_settings_are_refused_by_name(change, name):
    with pytest.raises(ConfigError, match=name):
        RenderSettings(**{"width": 10, "height": 10, "pair_capacity": 10, **change})

"""The GPU kernel: its interpreted body against the XLA loop, and its lowering for CUDA."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.render import RenderSettings, rasterize, render
from splats.render.rasterize import check_backend, resolve_backend
from tests.rounding import rounding_bounds
from tests.splats.render.composite_test import ARGUMENTS, pairs_of
from tests.splats.render.scenes import composite_fixture, front_camera, random_gaussians
from training.errors import ConfigError


def compositor(name, backend):
    """A compiled function of the inputs of a fixture to outputs and gradients; both of these."""
    inputs, expected = composite_fixture(name)
    height, width = expected["image"].shape[:2]
    probe = jnp.zeros_like(inputs["means2d"])
    cotangents = tuple(jnp.asarray(expected[k], jnp.float32) for k in ("ct_image", "ct_alpha"))

    @jax.jit
    def run(inputs):
        pairs = pairs_of(inputs, width, height, 16)

        def draw(*arguments):
            return rasterize(
                *arguments[:5],
                pairs.pair_gaussian,
                pairs.tile_offsets,
                width=width,
                height=height,
                tile_size=16,
                absgrad_probe=arguments[5],
                backend=backend,
            )

        outputs, vjp = jax.vjp(draw, *(inputs[k] for k in ARGUMENTS), probe)
        return outputs, vjp(cotangents)

    return run, inputs, expected


FIXTURES = pytest.mark.parametrize("name", ["composite_f64", "composite_f64_saturated"])


@FIXTURES
def test_interpreted_kernel_matches_float64_and_the_xla_loop(name):
    compare(name, "mosaic_gpu_interpret")


@FIXTURES
def test_kernel_on_a_gpu_matches_float64_and_the_xla_loop(name):
    """Needs a GPU: JAX_PLATFORMS=cuda pytest tests/splats/render/mosaic_test.py."""
    try:
        check_backend("mosaic_gpu", jax.devices()[0])
    except ConfigError as error:
        pytest.skip(str(error))
    compare(name, "mosaic_gpu")


def compare(name, backend):
    """Each kernel within rounding of the exact values, and both within twice that."""
    run, inputs, expected = compositor(name, backend)
    loop, _, _ = compositor(name, "xla")
    references = [expected["image"], expected["alpha"]]
    references += [expected[f"grad_{k}"] for k in ARGUMENTS] + [expected["absgrad_means2d"]]
    found, looped, bounds = (
        jax.tree.leaves(result)
        for result in (run(inputs), loop(inputs), rounding_bounds(loop, inputs))
    )
    for ours, other, exact, bound in zip(found, looped, references, bounds, strict=True):
        assert bound < 3e-4 * np.abs(exact).max(), "a bound that tells nothing"
        np.testing.assert_allclose(ours, exact, rtol=0, atol=bound)
        np.testing.assert_allclose(ours, other, rtol=0, atol=2 * bound)


def render_gradient(backend):
    gaussians, camera = random_gaussians(15), front_camera(30, 20)
    settings = RenderSettings(30, 20, 200, tile_size=16, backend=backend)

    def value(gaussians):
        return jnp.sum(render(gaussians, camera, settings).image ** 2)

    return jax.jit(jax.grad(value)), gaussians


@pytest.mark.slow
def test_whole_renderer_has_equal_gradients_through_the_interpreted_kernel():
    (ours, gaussians), (xla, _) = (render_gradient(b) for b in ("mosaic_gpu_interpret", "xla"))
    found, expected = ours(gaussians), xla(gaussians)
    bounds = rounding_bounds(xla, gaussians, answers=2)
    for name in gaussians:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=0, atol=bounds[name], err_msg=name
        )
        assert bounds[name] < 1e-3 * np.abs(expected[name]).max(), "a bound that tells nothing"


def test_forward_and_backward_lower_to_mosaic_gpu_kernels_for_cuda():
    gradient, gaussians = render_gradient("mosaic_gpu")
    text = gradient.trace(gaussians).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @mosaic_gpu") == 2


def test_small_tiles_are_refused_by_the_kernel():
    gaussians, camera = random_gaussians(5), front_camera(40, 30)
    settings = RenderSettings(40, 30, 100, tile_size=8, backend="mosaic_gpu")
    with pytest.raises(ConfigError, match="tile_size 8"):
        jax.eval_shape(lambda g: render(g, camera, settings), gaussians)


@pytest.mark.parametrize(
    "platform, capability, expected",
    [("gpu", "9.0", True), ("gpu", "10.0", True), ("gpu", "8.6", False), ("cpu", None, False),
     ("gpu", "gfx942", False), ("tpu", None, False)],
)  # fmt: skip
def test_the_kernel_is_refused_but_on_hopper_and_newer(platform, capability, expected):
    device = SimpleNamespace(platform=platform, compute_capability=capability, device_kind="some")
    check_backend("xla", device)
    with contextlib.nullcontext() if expected else pytest.raises(ConfigError, match="capability"):
        check_backend("mosaic_gpu", device)


def test_the_kernel_is_refused_on_a_newer_pallas(monkeypatch):
    device = SimpleNamespace(platform="gpu", compute_capability="9.0", device_kind="some")
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    with pytest.raises(ConfigError, match=r"jax 0\.10"):
        check_backend("mosaic_gpu", device)


def test_auto_is_the_xla_loop():
    assert resolve_backend("auto") == "xla"
    assert resolve_backend("mosaic_gpu") == "mosaic_gpu"

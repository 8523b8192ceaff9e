"""A whole scene: silhouettes, depth and order are right, and every parameter is reached."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import BackgroundConfig, SamplerConfig, preset
from hand_object.fields.density import beta_start
from hand_object.render.placement import ObjectPlacement
from hand_object.render.rigid import Similarity
from hand_object.render.scene import (
    CLASSES,
    Rays,
    init_caches,
    init_scene,
    octaves_of,
    refresh_caches,
    render,
)
from tests.hand_object.posed_finger import bend, finger
from training.errors import ConfigError

pytestmark = pytest.mark.usefixtures("quick_compilation")
FRAMES, SIDE = 2, 12
SMALL = dataclasses.replace(
    preset("smoke"), sampler=SamplerConfig(kind="proposal", samples=24, probes=48, cache=32)
)
EXACT = dataclasses.replace(
    SMALL,
    sampler=SamplerConfig(samples=24, probes=32, extra=8, rounds=3),
    background=BackgroundConfig(
        samples=6,
        layers=2,
        skip=1,
        width=48,
        features=8,
        frequencies=2,
        color_width=16,
        frame_code=3,
    ),
    skinning=dataclasses.replace(SMALL.skinning, kind="vertices"),
)
SCALE, DISTANCE = 0.5, 2.0


def scene_of(config, beta=0.01):
    """An object ball in front of the camera, and a finger beside it."""
    params = init_scene(jax.random.key(3), config, hands={"right": 6}, frames=5)
    sharp = dataclasses.replace(config.density, beta=beta)
    for node in params["nodes"].values():
        node["beta"] = jnp.float32(beta_start(sharp))
    similarity = Similarity(
        jnp.full(FRAMES, SCALE),
        jnp.broadcast_to(jnp.eye(3)[None], (FRAMES, 3, 3)),
        jnp.broadcast_to(jnp.array([[0.0, 0.0, DISTANCE]]), (FRAMES, 3)),
    )
    transforms = np.stack([bend(0.2, (-0.02, 0.03, 0.3))] * FRAMES)
    placements = {
        "object": ObjectPlacement(similarity, jnp.array([1, 4])),
        "right": finger(transforms),
    }
    line = jnp.linspace(-0.3, 0.3, SIDE)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(1, -1, 2)
    directions = jnp.concatenate([grid, jnp.ones_like(grid[..., :1])], axis=-1)
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    directions = jnp.broadcast_to(directions, (FRAMES, SIDE * SIDE, 3))
    backdrop = jnp.full(directions.shape, 0.25)
    rays = Rays(jnp.zeros_like(directions), directions, jnp.array([1, 4]), backdrop)
    return params, placements, rays


@pytest.fixture(scope="module", params=["proposal", "error_bounded"])
def rendered(request):
    config = SMALL if request.param == "proposal" else EXACT
    params, placements, rays = scene_of(config)
    run = jax.jit(lambda *a: render(a[0], config, *a[1:]))
    return (
        config,
        params,
        placements,
        rays,
        run(params, placements, rays, init_caches(params, config)),
    )


def nearest_to_ball(rays):
    """Distance of rays from the center of the object, and depth of its surface."""
    d = np.asarray(rays.directions)
    middle = d[..., 2] * DISTANCE
    offset = np.sqrt(np.maximum(DISTANCE**2 - middle**2, 0))
    radius = SMALL.sdf.radius * SCALE
    return offset, middle - np.sqrt(np.maximum(radius**2 - offset**2, 0)), radius


def test_masks_and_depth_are_those_of_a_ball(rendered):
    _, _, _, rays, result = rendered
    offset, depth, radius = nearest_to_ball(rays)
    inside, outside = offset < 0.8 * radius, offset > 1.25 * radius
    mask = np.asarray(result.masks["object"])
    assert np.min(mask[inside]) > 0.95
    assert np.max(mask[outside]) < 0.05
    alone = inside & (np.asarray(result.semantics[..., CLASSES["object"]]) > 0.95)
    assert alone.sum() >= 15
    # The network is a ball up to its noise: 3 % of the unit, and beta.
    assert np.abs(np.asarray(result.depth)[alone] - depth[alone]).max() < 0.05
    facing = np.asarray(result.normal)[alone]
    assert np.all(facing[:, 2] < 0)


def test_semantics_sum_to_one_and_absent_nodes_have_none(rendered):
    _, _, _, _, result = rendered
    semantics = np.asarray(result.semantics)
    np.testing.assert_allclose(semantics.sum(axis=-1), np.ones(semantics.shape[:2]), atol=1e-5)
    assert np.all(semantics[..., CLASSES["left"]] == 0)
    assert semantics[..., CLASSES["right"]].max() > 0.5


def test_the_hand_in_front_hides_the_object_but_not_its_mask(rendered):
    _, _, _, _, result = rendered
    both = (np.asarray(result.masks["object"]) > 0.95) & (np.asarray(result.masks["right"]) > 0.95)
    assert both.any()
    assert np.all(np.asarray(result.semantics)[..., CLASSES["right"]][both] > 0.9)


def test_empty_pixels_show_what_is_behind(rendered):
    config, _, _, _, result = rendered
    empty = np.asarray(result.semantics)[..., 0] > 0.9999
    assert empty.any()
    color = np.asarray(result.color)[empty]
    if config.background.kind == "median_frame":
        np.testing.assert_allclose(color, np.full(color.shape, 0.25), atol=1e-3)
    else:
        assert np.all((color > 0) & (color < 1))


@pytest.mark.parametrize("kind", ["proposal", "error_bounded"])
def test_a_loss_of_pixels_reaches_every_parameter_and_both_poses(kind):
    config = SMALL if kind == "proposal" else EXACT
    params, placements, rays = scene_of(config, beta=0.05)
    rays = jax.tree.map(lambda leaf: leaf[:, ::3] if leaf.ndim == 3 else leaf, rays)
    caches = init_caches(params, config)
    # Planes start at zero, and what they multiply has no gradient there.
    params = jax.tree.map(
        lambda leaf: leaf + 0.01 * jnp.cos(jnp.arange(leaf.size * 1.0)).reshape(leaf.shape), params
    )

    @jax.jit
    def slopes(params, similarity, transforms):
        def loss(params, similarity, transforms):
            moved = {
                "object": placements["object"]._replace(similarity=similarity),
                "right": placements["right"]._replace(transforms=transforms),
            }
            result = render(params, config, moved, rays, caches, jax.random.key(0), 5000)
            eikonal = sum(jnp.mean(jnp.square(g)) for g in result.gradients.values())
            return jnp.mean(jnp.square(result.color - 0.3)) + eikonal

        return jax.grad(loss, argnums=(0, 1, 2))(params, similarity, transforms)

    # The pose of the hand has to be other than zero to reach its code.
    placements["right"] = placements["right"]._replace(pose=jnp.ones((FRAMES, 6)))
    got = slopes(params, placements["object"].similarity, placements["right"].transforms)
    for path, leaf in jax.tree_util.tree_leaves_with_path(got):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


def test_a_missing_backdrop_is_told():
    params, placements, rays = scene_of(SMALL)
    with pytest.raises(ConfigError, match="needs the backdrop"):
        jax.eval_shape(
            lambda p: render(p, SMALL, placements, rays._replace(backdrop=None), {}), params
        )


def test_caches_are_made_anew_on_their_cadence_only():
    params, _, _ = scene_of(SMALL)
    caches = init_caches(params, SMALL)
    assert {name: cache.shape for name, cache in caches.items()} == dict.fromkeys(
        ("object", "right"), (32, 32, 32)
    )
    stale = jax.tree.map(jnp.zeros_like, caches)
    run = jax.jit(lambda step: refresh_caches(params, SMALL, stale, step))
    every = SMALL.sampler.cache_every
    jax.tree.map(np.testing.assert_array_equal, run(every + 1), stale)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), run(every), caches)
    assert init_caches(params, EXACT) == {}


def test_octaves_open_for_objects_in_training_only():
    config = preset("seed")
    assert octaves_of("right", config, 0) is None
    assert octaves_of("object", config, None) is None
    np.testing.assert_array_equal(octaves_of("object", config, 0), np.zeros(6))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seed", "hold"])
def test_the_wide_presets_take_one_step_of_a_few_rays(name):
    config = preset(name)
    sampler = dataclasses.replace(
        config.sampler, samples=4, probes=8, extra=2, rounds=1, bisections=2
    )
    background = dataclasses.replace(config.background, samples=2)
    config = dataclasses.replace(config, sampler=sampler, background=background)
    params, placements, rays = scene_of(config, beta=0.1)
    rays = jax.tree.map(lambda leaf: leaf[:, 60:64] if leaf.ndim == 3 else leaf, rays)

    def loss(params):
        result = render(params, config, placements, rays, {}, jax.random.key(0), 100)
        return jnp.mean(jnp.square(result.color - 0.3))

    value, slopes = jax.jit(jax.value_and_grad(loss))(params)
    moved = jax.tree.map(lambda p, g: p - 1e-3 * g, params, slopes)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(moved))

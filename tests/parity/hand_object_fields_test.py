"""Fields and compositing against the same formulas in torch, float64, with the same weights.

The reference is written from the papers: IGR's network with weight normalization and a skip, the
density of VolSDF, NeRF++ with its rotation of the exit point, and sums over intervals one by one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import (
    BackgroundConfig,
    ColorConfig,
    DensityConfig,
    EncodingConfig,
    FieldConfig,
    SdfConfig,
)
from hand_object.fields.background import (
    background_color,
    background_field,
    init_background,
    inverted_sphere_points,
)
from hand_object.fields.color_network import color, init_color
from hand_object.fields.density import laplace
from hand_object.fields.sdf_network import init_sdf, sdf_feature_normal, signed_distance
from hand_object.render.composition import Samples, additive

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("quick_compilation")]

MODEL = FieldConfig(
    encoding=EncodingConfig(frequencies=6),
    sdf=SdfConfig(layers=4, width=64, skip=2, features=16),
    color=ColorConfig(layers=3, width=32),
    background=BackgroundConfig(
        layers=3, width=64, skip=2, features=8, frequencies=6, color_width=16, frame_code=4
    ),
    density=DensityConfig(kind="laplace"),
)
POINTS, RAYS, VALUE, SLOPE = 40, 12, 1e-5, 1e-4


def disturbed(params, seed=0):
    """Random weights everywhere, so that no column is zero as it is at the start."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.05 * draw.normal(size=leaf.shape), jnp.float32), params
    )


def in_torch(params):
    return jax.tree.map(
        lambda leaf: torch.tensor(np.asarray(leaf), dtype=torch.float64, requires_grad=True), params
    )


def given(array):
    return torch.tensor(np.asarray(array), dtype=torch.float64)


def encoded(x, octaves):
    parts = [x]
    for k in range(octaves):
        parts += [torch.sin(2.0**k * x), torch.cos(2.0**k * x)]
    return torch.cat(parts, dim=-1)


def layer(own, h):
    kernel = own["gain"] * own["direction"] / own["direction"].norm(dim=0)
    return h @ kernel + own["bias"]


def stack(layers, inputs, skip, activation):
    """All layers; the inputs come again before hidden layer `skip`."""
    h = inputs
    for number in range(len(layers) - 1):
        if number == skip:
            h = torch.cat([h, inputs], dim=-1) / math.sqrt(2)
        h = activation(layer(layers[str(number)], h))
    return layer(layers[str(len(layers) - 1)], h)


def softplus(h):
    return torch.log1p(torch.exp(-100 * h.abs())) / 100 + h.clamp(min=0)


def torch_sdf(params, x):
    return stack(params["layers"], encoded(x, 6), 2, softplus)


def torch_laplace(sdf, beta):
    inside = 1 - 0.5 * torch.exp(-sdf.abs() / beta)
    return torch.where(sdf > 0, 0.5 * torch.exp(-sdf.abs() / beta), inside) / beta


def agree(found, reference):
    """Gradients of all parameters, relative to the size of each and a share of the whole."""
    ours = jax.tree.leaves(jax.tree.map(np.asarray, found))
    theirs = [leaf.grad.numpy() for leaf in jax.tree.leaves(reference)]
    whole = math.sqrt(sum(float(np.square(own).sum()) for own in theirs))
    assert whole > 0
    for own, wanted in zip(ours, theirs, strict=True):
        size = max(np.linalg.norm(wanted), 1e-2 * whole)
        assert np.linalg.norm(own - wanted) <= SLOPE * size


def points(seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (POINTS, 3)).astype(np.float32)


def test_distance_features_and_gradient():
    params, x = disturbed(init_sdf(jax.random.key(0), MODEL)), points()
    value, features, slope = sdf_feature_normal(params, MODEL, jnp.asarray(x))
    place = given(x).requires_grad_()
    out = torch_sdf(in_torch(params), place)
    (wanted,) = torch.autograd.grad(out[:, 0].sum(), place)
    np.testing.assert_allclose(value, out[:, 0].detach(), atol=VALUE)
    np.testing.assert_allclose(features, out[:, 1:].detach(), atol=VALUE)
    np.testing.assert_allclose(slope, wanted, atol=SLOPE * float(wanted.abs().max()))


def test_the_geometric_start_is_the_reference_network_too():
    """Without disturbance: a ball, negative inside, in both."""
    model = replace(MODEL, sdf=replace(MODEL.sdf, width=256))
    params, directions = init_sdf(jax.random.key(3), model), points(1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for radius, sign in ((0.1, -1), (1.3, 1)):
        x = np.float32(radius) * directions
        found = signed_distance(params, model, jnp.asarray(x))
        reference = torch_sdf(in_torch(params), given(x))[:, 0].detach()
        np.testing.assert_allclose(found, reference, atol=VALUE)
        assert (np.sign(reference.numpy()) == sign).all()


def test_gradients_of_the_eikonal_term_and_of_colors():
    """The loss is differentiated through the gradient of the field."""
    sdf = disturbed(init_sdf(jax.random.key(0), MODEL))
    tint = disturbed(init_color(jax.random.key(1), MODEL, frame_code=False), 1)
    x, code = points(), np.zeros((POINTS, MODEL.color.pose_code), np.float32)
    wanted = np.random.default_rng(5).uniform(0, 1, (POINTS, 3)).astype(np.float32)

    def ours(both):
        _, features, slope = sdf_feature_normal(both[0], MODEL, jnp.asarray(x))
        normal = slope / jnp.linalg.norm(slope, axis=1, keepdims=True)
        rgb = color(both[1], MODEL, jnp.asarray(x), normal, jnp.asarray(code), features)
        eikonal = jnp.mean(jnp.square(jnp.linalg.norm(slope, axis=1) - 1))
        return jnp.mean(jnp.square(rgb - wanted)) + 0.1 * eikonal, rgb

    (_, rgb), slopes = jax.jit(jax.value_and_grad(ours, has_aux=True))((sdf, tint))
    theirs = in_torch((sdf, tint))
    place = given(x).requires_grad_()
    out = torch_sdf(theirs[0], place)
    (slope,) = torch.autograd.grad(out[:, 0].sum(), place, create_graph=True)
    normal = slope / slope.norm(dim=1, keepdim=True)
    inputs = torch.cat([given(x), normal, given(code), out[:, 1:]], dim=-1)
    reference = torch.sigmoid(stack(theirs[1], inputs, None, torch.relu))
    loss = (reference - given(wanted)).square().mean()
    loss = loss + 0.1 * (slope.norm(dim=1) - 1).square().mean()
    loss.backward()
    np.testing.assert_allclose(rgb, reference.detach(), atol=VALUE)
    agree(slopes, theirs)


def test_density_and_its_slopes():
    sdf, beta = np.linspace(-0.6, 0.6, 41).astype(np.float32), np.float32(0.07)
    ours, slopes = jax.value_and_grad(lambda s, b: jnp.sum(laplace(s, b)), argnums=(0, 1))(
        jnp.asarray(sdf), jnp.asarray(beta)
    )
    s, b = given(sdf).requires_grad_(), given(beta).requires_grad_()
    reference = torch_laplace(s, b).sum()
    reference.backward()
    found = laplace(jnp.asarray(sdf), jnp.asarray(beta))
    np.testing.assert_allclose(found, torch_laplace(s, b).detach(), rtol=VALUE)
    np.testing.assert_allclose(ours, reference.item(), rtol=VALUE)
    np.testing.assert_allclose(slopes[0][sdf != 0], s.grad[sdf != 0], rtol=SLOPE)
    np.testing.assert_allclose(slopes[1], b.grad, rtol=SLOPE)


def test_nodes_add_up_on_merged_intervals():
    """Interval by interval, ray by ray."""
    draw = np.random.default_rng(2)
    nodes = []
    for _ in range(2):
        z = np.sort(draw.uniform(0, 3, (RAYS, 9)), axis=1).astype(np.float32)
        sdf = draw.normal(0, 0.3, (RAYS, 8)).astype(np.float32)
        nodes.append((z, sdf, draw.uniform(0, 1, (RAYS, 8, 3)).astype(np.float32)))
    beta = np.float32(0.1)

    def ours(sdfs, width):
        samples = [
            Samples(jnp.asarray(z), laplace(own, width), jnp.asarray(values))
            for own, (z, _, values) in zip(sdfs, nodes)
        ]
        found = additive(samples, MODEL.density)
        return jnp.sum(found.values), found

    arguments = [jnp.asarray(node[1]) for node in nodes], jnp.asarray(beta)
    (_, found), slopes = jax.jit(jax.value_and_grad(ours, argnums=(0, 1), has_aux=True))(*arguments)
    theirs = in_torch([node[1] for node in nodes])
    width = given(beta).requires_grad_()
    values, behind = [], []
    for ray in range(RAYS):
        edges = sorted({*nodes[0][0][ray].tolist(), *nodes[1][0][ray].tolist()})
        light, pixel = torch.ones((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for start, end in itertools.pairwise(edges):
            total, mixed = torch.zeros((), dtype=torch.float64), 0.0
            for (z, _, tints), own in zip(nodes, theirs):
                at = np.searchsorted(z[ray], start, side="right") - 1
                if 0 <= at < 8:
                    sigma = torch_laplace(own[ray, at], width)
                    total = total + sigma
                    mixed = mixed + sigma * given(tints[ray, at])
            if float(total.detach()) > 0:
                share = 1 - torch.exp(-total * (end - start))
                pixel = pixel + light * share * mixed / total
                light = light * (1 - share)
        values.append(pixel)
        behind.append(light)
    reference = torch.stack(values)
    reference.sum().backward()
    np.testing.assert_allclose(found.values, reference.detach(), atol=VALUE)
    np.testing.assert_allclose(found.background, torch.stack(behind).detach(), atol=VALUE)
    agree(slopes[0], theirs)
    np.testing.assert_allclose(slopes[1], width.grad, rtol=SLOPE)


def nerf_points(origins, directions, rho):
    """NeRF++, its section 3: the exit point of the unit sphere turned about (nearest x exit)."""
    near = -(origins * directions).sum(-1)
    middle = origins + near[:, None] * directions
    leave = origins + (near + (1 - (middle**2).sum(-1)).sqrt())[:, None] * directions
    axis = torch.linalg.cross(origins, leave)
    axis = axis / axis.norm(dim=-1, keepdim=True)
    length = middle.norm(dim=-1)
    angle = torch.asin(length)[:, None] - torch.asin(length[:, None] * rho)
    exits, about = leave[:, None].expand(*rho.shape, 3), axis[:, None].expand(*rho.shape, 3)
    cos, sin = torch.cos(angle)[..., None], torch.sin(angle)[..., None]
    turned = exits * cos + torch.linalg.cross(about, exits) * sin
    turned = turned + about * (about * exits).sum(-1, keepdim=True) * (1 - cos)
    return torch.cat([turned / turned.norm(dim=-1, keepdim=True), rho[..., None]], dim=-1)


def test_the_background_outside_of_the_sphere():
    draw, settings = np.random.default_rng(4), MODEL.background
    origins = draw.uniform(-0.3, 0.3, (RAYS, 3)).astype(np.float32)
    directions = draw.normal(size=(RAYS, 3))
    directions = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    rho = np.tile(np.linspace(0.95, 0.05, 6, dtype=np.float32), (RAYS, 1))
    code = draw.normal(size=(RAYS * 6, settings.frame_code)).astype(np.float32)
    views = np.repeat(directions, 6, axis=0)
    params = disturbed(init_background(jax.random.key(2), settings), 2)

    def ours(own):
        places = inverted_sphere_points(*map(jnp.asarray, (origins, directions, rho)))
        sigma, rgb = background_field(
            own, settings, places.reshape(-1, 4), jnp.asarray(views), jnp.asarray(code)
        )
        pixel = background_color(sigma.reshape(RAYS, 6), rgb.reshape(RAYS, 6, 3), jnp.asarray(rho))
        return jnp.sum(jnp.square(pixel)), (places, pixel)

    (_, (places, pixel)), slopes = jax.jit(jax.value_and_grad(ours, has_aux=True))(params)
    theirs = in_torch(params)
    where = nerf_points(given(origins), given(directions), given(rho))
    inputs = torch.cat([encoded(where.reshape(-1, 4), settings.frequencies), given(code)], dim=-1)
    out = stack(theirs["density"], inputs, settings.skip, softplus)
    seen = torch.cat([encoded(given(views), settings.view_frequencies), given(code), out[:, 1:]],
                     dim=-1)  # fmt: skip
    rgb = torch.sigmoid(stack(theirs["color"], seen, None, torch.relu)).reshape(RAYS, 6, 3)
    sigma, light = out[:, 0].abs().reshape(RAYS, 6), torch.ones(RAYS, dtype=torch.float64)
    reference = torch.zeros(RAYS, 3, dtype=torch.float64)
    for sample in range(6):
        share = torch.ones(RAYS, dtype=torch.float64)  # the last is opaque
        if sample < 5:
            share = 1 - torch.exp(-sigma[:, sample] * given(rho[:, sample] - rho[:, sample + 1]))
        reference = reference + (light * share)[:, None] * rgb[:, sample]
        light = light * (1 - share)
    reference.square().sum().backward()
    np.testing.assert_allclose(places, where, atol=VALUE)
    np.testing.assert_allclose(pixel, reference.detach(), atol=10 * VALUE)
    agree(slopes, theirs)

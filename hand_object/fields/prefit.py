"""Stage 0: the SDF network of a node learns the distance to a template before any image is seen.

A hand that starts as a ball of 0.6 units would have to find five fingers by color alone. Half of
the points lie near the surface, the rest anywhere in the cube of the field; the error counts up to
a distance of CLAMP, and the eikonal term keeps the rest a distance.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hand_object.config import FieldConfig
from hand_object.fields.layers import Params
from hand_object.fields.mesh_distance import mesh_distance, mesh_triangles
from hand_object.fields.sdf_network import sdf_feature_normal, signed_distance
from hand_object.fields.triplane import HALF_SIDE

CLAMP = 0.1  # canonical units
EIKONAL = 0.1
NEAR = (0.01, 0.06)  # canonical units that points near the surface are moved by
NETWORK_RATE, PLANE_RATE = 1e-3, 1e-2


class Template(NamedTuple):
    """Points [N, 3] with their distances [N], canonical; the frame of it: center [3], radius."""

    points: np.ndarray
    distances: np.ndarray
    center: np.ndarray
    radius: float


def canonical_frame(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """Center and radius of the ball around the box of a template, in its own units."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    center = (low + high) / 2
    return center, float(np.linalg.norm(vertices - center, axis=-1).max())


def sample_template(
    vertices: np.ndarray, faces: np.ndarray, count: int = 16_384, seed: int = 0
) -> Template:
    """Points in and around a mesh with their exact distances.

    Args:
      vertices: [V, 3] in any unit.
      faces: [F, 3] counterclockwise seen from outside.
      count: points, half of them near the surface.
    """
    center, radius = canonical_frame(vertices)
    triangles = mesh_triangles((vertices - center) / radius, faces)
    random = np.random.default_rng(seed)
    near = surface_points(triangles, count // 2, random)
    widths = np.asarray(NEAR, np.float32)[random.integers(0, len(NEAR), count // 2)]
    near += widths[:, None] * random.normal(size=near.shape).astype(np.float32)
    free = random.uniform(-HALF_SIDE, HALF_SIDE, (count - len(near), 3)).astype(np.float32)
    points = np.concatenate([near, free])
    distances = np.asarray(_compiled_distance(points, triangles))
    return Template(points, distances, center.astype(np.float32), radius)


_compiled_distance = jax.jit(mesh_distance)


def surface_points(triangles: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """[count, 3] float32 points, spread evenly by area."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.linalg.norm(normals.astype(np.float64), axis=-1)
    chosen = triangles[random.choice(len(triangles), count, p=area / area.sum())]
    u, v = np.sqrt(random.uniform(size=count)), random.uniform(size=count)
    shares = np.stack([1 - u, u * (1 - v), u * v], axis=-1)
    return np.einsum("nc,ncd->nd", shares, chosen).astype(np.float32)


def prefit(
    key: jax.Array,
    params: Params,
    config: FieldConfig,
    template: Template,
    *,
    updates: int = 1500,
    batch: int = 2048,
) -> tuple[Params, jax.Array]:
    """Parameters of the SDF network that have learned a template, and the loss [updates].

    Args:
      params: of `init_sdf`.
      batch: points of an update, with their eikonal term.
    """
    run = _compiled_run(config, updates, batch)
    return run(key, params, jnp.asarray(template.points), jnp.asarray(template.distances))


def _compiled_run(config: FieldConfig, updates: int, batch: int):
    optimizer = _optimizer(updates)

    def loss(params, x, target):
        value, _, gradient = sdf_feature_normal(params, config, x)
        wrong = jnp.clip(value, -CLAMP, CLAMP) - jnp.clip(target, -CLAMP, CLAMP)
        # Beyond the clamp the sign still has to be right, which clipping alone would not teach.
        across = jnp.where(value * target < 0, jnp.abs(value), 0.0)
        length = jnp.sqrt(jnp.sum(jnp.square(gradient), axis=-1) + 1e-12)
        return jnp.mean(jnp.abs(wrong) + across) + EIKONAL * jnp.mean(jnp.square(length - 1.0))

    @jax.jit
    def run(key, params, points, distances):
        def update(carry, key):
            params, state = carry
            rows = jax.random.randint(key, (batch,), 0, len(points))
            value, slope = jax.value_and_grad(loss)(params, points[rows], distances[rows])
            changes, state = optimizer.update(slope, state, params)
            return (optax.apply_updates(params, changes), state), value

        keys = jax.random.split(key, updates)
        (params, _), losses = jax.lax.scan(update, (params, optimizer.init(params)), keys)
        return params, losses

    return run


def _optimizer(updates: int) -> optax.GradientTransformation:
    def adam(rate):
        schedule = optax.cosine_decay_schedule(rate, updates, alpha=0.05)
        return optax.adam(schedule, b2=0.99, eps=1e-15)

    def labels(params):
        return {name: name for name in params}

    rates: dict[Hashable, optax.GradientTransformation] = {
        "layers": adam(NETWORK_RATE),
        "planes": adam(PLANE_RATE),
    }
    return optax.multi_transform(rates, labels)


def prefit_error(params: Params, config: FieldConfig, template: Template) -> float:
    """Mean |error| within CLAMP of the surface, canonical units."""
    near = np.abs(template.distances) < CLAMP
    got = jax.jit(lambda p, x: signed_distance(p, config, x))(params, template.points)
    return float(np.mean(np.abs(np.asarray(got)[near] - template.distances[near])))

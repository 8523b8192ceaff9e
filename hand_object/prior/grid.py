"""The interaction grid: an object's distances and a hand's joints on the same small cube of voxels.

Everything lies in the *hand-normalized frame* of G-HOP (Ye et al. 2024): the wrist does not turn,
fingers point along -x, the back of the hand is +y, the thumb's side +z; the origin is 8 cm below
(toward the palm from) the knuckle of the index finger; one unit is 0.2 m. A left hand is mirrored
into it.

A grid is [D, H, W, C]: D runs along x, H along y, W along z, from -`limit` to +`limit` with samples
on both ends. Object values are distances in units, cut off softly at `truncation` and divided by
it. Hand values are *squared* distances of 20 joints (all but the wrist), cut off and divided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.hands.chirality import INDEX, MIDDLE, PINKY, rest_joints
from hand_object.hands.model import HandModel
from hand_object.render.rigid import HIGHEST
from training.settings import setting

UNIT = 0.2  # meters
CENTER = np.array([0.0, -0.08, 0.0], np.float32)  # meters, from the knuckle of the index finger
JOINTS = 20  # of 21; the wrist has no channel
LEAK = 0.01  # slope of the cut-off beyond the truncation, so that no gradient is exactly zero


@dataclass(frozen=True)
class GridConfig:
    """Sizes and units of a grid; a prior works only on the grid that it was trained on."""

    object_size: int = setting(64, least=4, most=128)  # samples along a side
    hand_size: int = setting(16, least=4, most=128)
    limit: float = setting(1.5, above=0, most=10)  # half a side, units
    truncation: float = setting(0.2, above=0, most=10)  # units
    # `tanh` bends all values; `leaky` keeps those inside exact, as a hard cut-off does.
    cut: str = setting("leaky", choices=("leaky", "tanh"))
    joint_reach: float = setting(0.12, above=0, most=100)  # units squared
    joint_scale: float = setting(1.0, above=0, most=100)  # squared distances are divided by it


FULL_GRID = GridConfig()
MINI_GRID = GridConfig(object_size=16, limit=0.8, cut="tanh", joint_scale=0.12)


class HandFrame(NamedTuple):
    """Where the hand-normalized frame of a hand lies.

    Attributes:
      axes: [3, 3] rows are the normalized axes in the hand model's frame; a mirror of a left hand.
      center: [3] meters from the wrist, along the normalized axes.
    """

    axes: np.ndarray
    center: np.ndarray


def hand_frame(model: HandModel) -> HandFrame:
    """The frame of a hand model by its anatomy, whatever the axes of the model are.

    G-HOP uses MANO's own axes, which point the same ways; by how much they differ was not measured.
    """
    joints = rest_joints(model)
    backward = joints[0] - joints[MIDDLE]
    x = backward / np.linalg.norm(backward)
    thumbward = joints[INDEX] - joints[PINKY]
    z = thumbward - (thumbward @ x) * x
    z = z / np.linalg.norm(z)
    # Of a right hand z cross x is its back; of a left one the palm, hence a mirror.
    y = np.cross(z, x) * (1 if model.side == "right" else -1)
    axes = np.stack([x, y, z])
    center = axes @ (joints[INDEX] - joints[0]) + CENTER
    return HandFrame(axes.astype(np.float32), center.astype(np.float32))


def to_normalized(
    points: jax.Array, wrist: jax.Array, rotation: jax.Array, frame: HandFrame
) -> jax.Array:
    """Points [N, 3] in meters of the world -> units of the hand.

    Args:
      wrist: [3] meters, the first joint in the world.
      rotation: [3, 3] hand model -> world, of the first joint.
    """
    turn = jnp.matmul(jnp.asarray(frame.axes), rotation.T, precision=HIGHEST)
    moved = jnp.matmul(points - wrist[None], turn.T, precision=HIGHEST)
    return (moved - jnp.asarray(frame.center)[None]) / UNIT


def to_world(
    points: jax.Array, wrist: jax.Array, rotation: jax.Array, frame: HandFrame
) -> jax.Array:
    """The inverse of `to_normalized`: units of the hand -> meters of the world, [N, 3]."""
    turn = jnp.matmul(jnp.asarray(frame.axes), rotation.T, precision=HIGHEST)
    moved = points * UNIT + jnp.asarray(frame.center)[None]
    return jnp.matmul(moved, turn, precision=HIGHEST) + wrist[None]


def grid_points(size: int, limit: float) -> np.ndarray:
    """[size, size, size, 3] units: entry [i, j, k] is the point (x_i, y_j, z_k)."""
    line = np.linspace(-limit, limit, size, dtype=np.float32)
    return np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1)


def truncated(distances: jax.Array, grid: GridConfig) -> jax.Array:
    """Distances in units -> [-1, 1] (a little beyond with `leaky`); never with a zero slope.

    A hard cut-off would give no gradient away from the surface.
    """
    ratio = distances / grid.truncation
    if grid.cut == "tanh":
        return jnp.tanh(ratio)
    inside = jnp.clip(ratio, -1.0, 1.0)
    return inside + LEAK * (ratio - inside)


def object_grid(distances: jax.Array, grid: GridConfig) -> jax.Array:
    """Distances [D * H * W] units at `grid_points` in their order -> [D, H, W, 1]."""
    size = grid.object_size
    return truncated(distances, grid).reshape(size, size, size, 1)


def hand_grid(joints: jax.Array, grid: GridConfig) -> jax.Array:
    """Joints [21, 3] units, the wrist first -> [D, H, W, 20]."""
    size = grid.hand_size
    points = jnp.asarray(grid_points(size, grid.limit).reshape(-1, 3))
    offsets = points[:, None] - joints[None, 1:]
    squares = jnp.sum(jnp.square(offsets), axis=-1)
    cut = jnp.minimum(squares, grid.joint_reach) / grid.joint_scale
    return cut.reshape(size, size, size, JOINTS)

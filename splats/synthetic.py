"""A license-free scene with known answers, ray cast in numpy and written as a COLMAP data set.

A textured sphere and a textured box stand on a textured square of ground, on black; the sphere has
a weak highlight, so that color depends a little on the direction of view. Images are analytic:
intersections are closed forms and each pixel averages `samples` x `samples` rays.
World: meters, z up, ground at z = 0. Arrays are named by R (rays).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from splats.data.camera_models import Camera
from splats.data.colmap import write_model
from splats.data.colmap_model import ColmapImage, ColmapModel, ColmapPoints
from splats.video.camera_path import orbit
from training.errors import ConfigError

SPHERE_CENTER, SPHERE_RADIUS = np.array([-0.45, 0.35, 0.6]), 0.6
BOX_LOW, BOX_HIGH = np.array([0.3, -0.95, 0.0]), np.array([1.0, -0.25, 0.8])
GROUND_HALF_SIZE = 3.0
TARGET = (0.0, 0.0, 0.3)
_LIGHT = np.array([0.4, -0.5, 0.77]) / np.linalg.norm([0.4, -0.5, 0.77])
_SHARES = {"ground": 0.5, "sphere": 0.3, "box": 0.2}


@dataclass(frozen=True)
class SyntheticConfig:
    """Size of the scene: `views` on three rings, images in pixels, sparse `points`."""

    views: int = 30
    width: int = 96
    height: int = 72
    points: int = 2000
    samples: int = 2  # rays per pixel side
    point_noise: float = 0.004  # standard deviation of sparse positions, meters
    seed: int = 0

    def __post_init__(self):
        if min(self.views, self.width, self.height, self.samples) < 1 or self.points < 0:
            raise ConfigError("A synthetic scene needs positive views, width, height and samples.")


def texture(points: np.ndarray, base: np.ndarray, seed: int) -> np.ndarray:
    """Linear color [R,3] in [0,1] at `points` [R,3]: a checker of soft edges plus smooth noise."""
    rng = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * 1.3 * (points + 0.13))
    checker = np.tanh(6 * wave[:, 0] * wave[:, 1] * np.where(np.abs(wave[:, 2]) < 0.2, 1, -1))
    color = base[None, :] * (1 + 0.25 * checker[:, None])
    for _ in range(4):
        direction, phase = rng.normal(scale=4.0, size=3), rng.uniform(0, 6.28, 3)
        color = color + 0.06 * np.sin((points @ direction)[:, None] + phase[None, :])
    return np.clip(color, 0.02, 0.98)


def _surfaces(points: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texture color and outward normal [R,3] of points on surface 0 ground, 1 sphere, 2 box."""
    color, normal = np.zeros_like(points), np.zeros_like(points)
    bases = ([0.45, 0.5, 0.4], [0.7, 0.35, 0.25], [0.3, 0.4, 0.7])
    for number, base in enumerate(bases):
        here = kind == number
        color[here] = texture(points[here], np.array(base), number)
    normal[kind == 0] = [0, 0, 1]
    normal[kind == 1] = (points[kind == 1] - SPHERE_CENTER) / SPHERE_RADIUS
    offset = (points[kind == 2] - (BOX_LOW + BOX_HIGH) / 2) / ((BOX_HIGH - BOX_LOW) / 2)
    axis = np.abs(offset).argmax(axis=1)
    sides = np.zeros_like(offset)
    sides[np.arange(len(axis)), axis] = np.sign(offset[np.arange(len(axis)), axis])
    normal[kind == 2] = sides
    return color, normal


def _intersect(origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance [R] along unit rays [R,3] from `origin` [3], inf on a miss, and the surface hit."""
    # A ray along a plane meets it at infinity, which the comparisons below sort out.
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = -origin[2] / direction[:, 2]
        spot = np.abs(origin[:2] + plane[:, None] * direction[:, :2]).max(axis=1)
        ground = np.where((plane > 0) & (spot < GROUND_HALF_SIZE), plane, np.inf)
        near, far = (BOX_LOW - origin) / direction, (BOX_HIGH - origin) / direction
    enter = np.minimum(near, far).max(axis=1)
    leave = np.maximum(near, far).min(axis=1)
    box = np.where((enter < leave) & (enter > 0), enter, np.inf)
    offset = origin - SPHERE_CENTER
    half = direction @ offset
    square = half**2 - (offset @ offset - SPHERE_RADIUS**2)
    root = -half - np.sqrt(np.maximum(square, 0))
    sphere = np.where((square > 0) & (root > 0), root, np.inf)
    distances = np.stack([ground, sphere, box])
    return distances.min(axis=0), distances.argmin(axis=0)


def cast(origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Color [R,3] in [0,1] seen along unit `direction` [R,3] from `origin` [3]; misses: black."""
    distance, kind = _intersect(origin, direction)
    hit = np.isfinite(distance)
    points = origin + distance[hit][:, None] * direction[hit]
    albedo, normal = _surfaces(points, kind[hit])
    light = 0.55 + 0.45 * np.maximum(normal @ _LIGHT, 0)
    mirrored = direction[hit] - 2 * np.sum(direction[hit] * normal, 1, keepdims=True) * normal
    gloss = 0.15 * np.maximum(mirrored @ _LIGHT, 0) ** 4 * (kind[hit] == 1)
    color = np.zeros_like(direction)
    color[hit] = np.clip(albedo * light[:, None] + gloss[:, None], 0, 1)
    return color


def render_view(world_to_camera: np.ndarray, camera: Camera, samples: int = 2) -> np.ndarray:
    """The image [height,width,3] uint8 that a pinhole `camera` at `world_to_camera` [4,4] takes."""
    fx, fy, cx, cy = camera.pinhole
    columns = (np.arange(camera.width * samples) + 0.5) / samples
    rows = (np.arange(camera.height * samples) + 0.5) / samples
    x, y = np.meshgrid((columns - cx) / fx, (rows - cy) / fy)
    rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)
    rotation = world_to_camera[:3, :3]
    # Rows times the world-to-camera rotation: its transpose takes camera to world.
    rays = (rays / np.linalg.norm(rays, axis=1, keepdims=True)) @ rotation
    color = cast(-rotation.T @ world_to_camera[:3, 3], rays)
    color = color.reshape(camera.height, samples, camera.width, samples, 3).mean(axis=(1, 3))
    return np.rint(255 * color).astype(np.uint8)


def sample_surfaces(
    count: int, generator: np.random.Generator, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """`count` points [N,3] on what cameras can see, with their shaded colors [N,3] uint8."""
    counts = [round(share * count) for share in _SHARES.values()]
    counts[0] += count - sum(counts)
    ground = np.zeros((counts[0], 3))
    ground[:, :2] = generator.uniform(-1, 1, (counts[0], 2)) * GROUND_HALF_SIZE
    sphere = generator.normal(size=(counts[1], 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    box = generator.uniform(0, 1, (counts[2], 3))
    side = generator.integers(0, 5, counts[2])  # the bottom face is left out
    box[np.arange(counts[2]), np.array([0, 0, 1, 1, 2])[side]] = np.array([0, 1, 0, 1, 1])[side]
    points = np.concatenate(
        [ground, SPHERE_CENTER + SPHERE_RADIUS * sphere, BOX_LOW + (BOX_HIGH - BOX_LOW) * box]
    )
    kind = np.repeat(np.arange(3), counts)
    albedo, normal = _surfaces(points, kind)
    light = 0.55 + 0.45 * np.maximum(normal @ _LIGHT, 0)
    colors = np.rint(255 * np.clip(albedo * light[:, None], 0, 1)).astype(np.uint8)
    return points + generator.normal(scale=noise, size=points.shape), colors


def synthetic_cameras(config: SyntheticConfig) -> tuple[np.ndarray, Camera]:
    """Poses [view,4,4] on rings at 22, 38 and 55 degrees in turn, and their common camera."""
    focal = 0.95 * config.width
    params = (focal, focal, config.width / 2, config.height / 2)
    camera = Camera("PINHOLE", config.width, config.height, params)
    rings = [
        orbit(config.views, center=TARGET, radius=3.0, elevation=elevation)
        for elevation in (22.0, 38.0, 55.0)
    ]
    return np.stack([rings[view % 3][view] for view in range(config.views)]), camera


def write_scene(
    folder: Path | str, config: SyntheticConfig | None = None, *, binary: bool = True
) -> Path:
    """Renders the scene into `folder`: images/NNNN.png and sparse/0; returns the folder."""
    config = config or SyntheticConfig()
    folder = Path(folder)
    poses, camera = synthetic_cameras(config)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images = {}
    for number, pose in enumerate(poses, 1):
        name = f"{number:04d}.png"
        Image.fromarray(render_view(pose, camera, config.samples)).save(folder / "images" / name)
        # SciPy puts w last.
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        images[number] = ColmapImage(name, 1, np.array([w, x, y, z]), pose[:3, 3])
    generator = np.random.default_rng(config.seed)
    points = sample_surfaces(config.points, generator, config.point_noise)
    model = ColmapModel({1: camera}, images, ColmapPoints.without_tracks(*points))
    write_model(folder / "sparse" / "0", model, binary=binary)
    return folder

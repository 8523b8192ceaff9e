"""Readers of fixtures and factories of small scenes, shared by the renderer's tests."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from splats.render import Camera

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Float32 tensors of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(content[begin:end], np.float32).reshape(entry["shape"])
    return tensors


def brush_case(name: str):
    """Gaussians, camera and the RGBA image that gsplat's CUDA kernels rendered of them."""
    case = read_safetensors(FIXTURES / f"{name}_case.safetensors")
    gaussians = {key: jnp.asarray(case[key]) for key in ("means", "scales", "quats", "opacities")}
    gaussians["sh0"] = jnp.asarray(case["coeffs"][:, :1])
    gaussians["shN"] = jnp.asarray(case["coeffs"][:, 1:])
    pose = np.eye(4, dtype=np.float32)
    pose[:3, 3] = (-0.123, -0.456, 8.0)
    return gaussians, make_camera(pose, 61.5, 61.5, 61.5, 41.0), case["out_img"]


def make_camera(pose, fx, fy, cx, cy) -> Camera:
    return Camera(jnp.asarray(pose, jnp.float32), *(jnp.float32(v) for v in (fx, fy, cx, cy)))


def random_gaussians(count: int, seed: int = 0, degree: int = 3) -> dict[str, jnp.ndarray]:
    """Gaussians scattered in a box before `front_camera`, some transparent, some opaque."""
    random = np.random.default_rng(seed)
    arrays = {
        "means": random.uniform([-2.0, -1.5, -1.0], [2.0, 1.5, 2.0], (count, 3)),
        "scales": random.uniform(-3.5, -1.2, (count, 3)),
        "quats": random.normal(size=(count, 4)),
        "opacities": random.uniform(-3.0, 4.0, count),
        "sh0": random.normal(size=(count, 1, 3)),
        "shN": 0.3 * random.normal(size=(count, (degree + 1) ** 2 - 1, 3)),
    }
    return {key: jnp.asarray(value, jnp.float32) for key, value in arrays.items()}


def front_camera(width: int, height: int) -> Camera:
    """A camera four units before the origin with a small rotation."""
    angle = 0.1
    pose = np.eye(4)
    pose[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)],
        [0, 1, 0],
        [-np.sin(angle), 0, np.cos(angle)],
    ]
    pose[:3, 3] = (0.1, -0.05, 4.0)
    return make_camera(pose, 0.9 * width, 0.95 * width, width / 2 + 1.3, height / 2 - 0.7)


def composite_fixture(name: str):
    """Float32 inputs and the float64 expectations of a dense compositing fixture."""
    data = dict(np.load(FIXTURES / f"{name}.npz"))
    inputs = {
        key: jnp.asarray(data[key], jnp.float32)
        for key in ("means2d", "conics", "colors", "opacities", "background", "depths")
    }
    return inputs, data

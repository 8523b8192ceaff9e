"""Speed of the fields of hand-object reconstruction, and of whole rays.

Points: distance, features, normal and color of the `seed` and `hold` networks with the gradient of
a loss of color and eikonal term, against the same networks written in torch (weight normalization,
normals by autograd with `create_graph`), in turns on the same weights and points; the aim is 1.5
times torch. Then `fast` against `seed`, and training rays of a whole scene with a hand and an
object; the aim is 30 times `seed`. One core, one thread for both, since threads of torch that wait
for each other suffer more from a busy machine; times are the least of several runs.

Run: python benchmarks/hand_object.py [--points 1024] [--repeats 5]
About two minutes; torch is only needed for its own rows (the parity extra).
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

# This file has the name of the package that it measures: look for packages one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 "
    + os.environ.get("XLA_FLAGS", "")
)
if hasattr(os, "sched_setaffinity"):  # the last core: the first one is that of other benchmarks
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.config import FieldConfig, preset
from hand_object.fields.color_network import color, init_color
from hand_object.fields.sdf_network import init_sdf, sdf_feature_normal
from hand_object.render.placement import HandPlacement, ObjectPlacement
from hand_object.render.rigid import Similarity
from hand_object.render.scene import Rays, init_caches, init_scene, render
from hand_object.render.skinning import Capsules

POSE_NUMBERS, VERTICES, JOINTS = 45, 778, 16


def interleaved(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Least seconds of each of several functions, called in turns after one call for warming up."""
    for run in runs.values():
        run()
    least = dict.fromkeys(runs, math.inf)
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def field_params(config: FieldConfig) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(0))
    return {
        "sdf": init_sdf(keys[0], config),
        "color": init_color(keys[1], config, frame_code=False),
    }


def field_loss(params, config: FieldConfig, x: jax.Array) -> jax.Array:
    """Color and eikonal term of points [N, 3]."""
    _, features, gradient = sdf_feature_normal(params["sdf"], config, x)
    length = jnp.linalg.norm(gradient, axis=-1, keepdims=True)
    codes = jnp.zeros((len(x), config.color.pose_code))
    rgb = color(params["color"], config, x, gradient / length, codes, features)
    return jnp.mean(jnp.abs(rgb - 0.3)) + 0.1 * jnp.mean(jnp.square(length - 1.0))


def torch_loss(leaves, config: FieldConfig, x):
    """`field_loss` in torch, for the encoding by frequencies."""
    import torch

    def dense(layer, h):
        direction = layer["direction"]
        kernel = direction * (layer["gain"] / direction.norm(dim=0))
        return torch.addmm(layer["bias"], h, kernel)

    x = x.detach().requires_grad_(True)
    octaves = 2.0 ** torch.arange(config.encoding.frequencies, dtype=x.dtype)
    angles = x[:, None, :] * octaves[:, None]
    waves = torch.stack([angles.sin(), angles.cos()], dim=2).reshape(len(x), -1)
    encoded = torch.cat([x, waves], dim=1)
    h, stack = encoded, leaves["sdf"]["layers"]
    for number in range(config.sdf.layers):
        if number == config.sdf.skip:
            h = torch.cat([h, encoded], dim=1) / math.sqrt(2.0)
        h = torch.nn.functional.softplus(dense(stack[str(number)], h), config.sdf.sharpness)
    out = dense(stack[str(config.sdf.layers)], h)
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), x, create_graph=True)
    length = gradient.norm(dim=1, keepdim=True)
    codes = torch.zeros(len(x), config.color.pose_code, dtype=x.dtype)
    h = torch.cat([x, gradient / length, codes, out[:, 1:]], dim=1)
    for number in range(config.color.layers):
        h = torch.relu(dense(leaves["color"][str(number)], h))
    rgb = torch.sigmoid(dense(leaves["color"][str(config.color.layers)], h))
    return (rgb - 0.3).abs().mean() + 0.1 * (length - 1.0).square().mean()


def as_torch(tree, dtype=None):
    """The same nested dicts with torch tensors that want gradients."""
    import torch

    if isinstance(tree, dict):
        return {name: as_torch(branch, dtype) for name, branch in tree.items()}
    return torch.tensor(np.asarray(tree), dtype=dtype or torch.float32, requires_grad=True)


def torch_leaves(tree) -> list:
    if isinstance(tree, dict):
        return [leaf for branch in tree.values() for leaf in torch_leaves(branch)]
    return [tree]


def random_points(count: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.8, 0.8, (count, 3)).astype(np.float32)


def measure_points(count: int, repeats: int) -> None:
    runs: dict[str, Callable[[], Any]] = {}
    sizes = {"seed": count, "hold": count, "fast": 8 * count}
    for name, size in sizes.items():
        config, params = preset(name), field_params(preset(name))
        x = jnp.asarray(random_points(size))
        step = jax.jit(jax.value_and_grad(partial(field_loss, config=config)))
        runs[name] = partial(lambda f, p, x: jax.block_until_ready(f(p, x=x)), step, params, x)
        if name != "fast" and importlib.util.find_spec("torch"):
            runs[f"{name} (torch)"] = torch_run(config, params, random_points(size))
    least = interleaved(runs, repeats)
    print("training points: distance, normal, color, gradients of a loss of both")
    for name, seconds in least.items():
        rate = sizes[name.split()[0]] / seconds / 1e3
        twin = least.get(f"{name} (torch)")
        against = "" if twin is None else f"  {twin / seconds:.2f} x torch (aim 1.5)"
        print(f"  {name:14s} {rate:8.1f} k/s{against}")
    ratio = least["seed"] / sizes["seed"] * sizes["fast"] / least["fast"]
    print(f"  fast / seed    {ratio:8.1f} times, per point")


def torch_run(config: FieldConfig, params, points: np.ndarray) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(1)
    leaves, x = as_torch(params), torch.tensor(points)
    flat = torch_leaves(leaves)
    ours = float(field_loss(params, config, jnp.asarray(points)))
    theirs = float(torch_loss(leaves, config, x).detach())
    if abs(ours - theirs) > 1e-4 * abs(theirs):
        raise SystemExit(f"the networks are not the same: losses {ours} and {theirs}")
    return lambda: torch.autograd.grad(torch_loss(leaves, config, x), flat)


def hand_of_rods(frames: int) -> HandPlacement:
    """A hand of as many rods as MANO has joints, with as many vertices."""
    random = np.random.default_rng(2)
    starts = random.uniform(-0.06, 0.06, (JOINTS, 3)) * [1, 1, 0.2]
    ends = starts + 0.03 * np.array([[0.0, 1.0, 0.0]])
    joint = np.arange(VERTICES) % JOINTS
    share = random.uniform(size=(VERTICES, 1))
    vertices = starts[joint] * (1 - share) + ends[joint] * share + [0.0, 0.0, 0.4]
    transforms = np.broadcast_to(np.eye(4), (frames, JOINTS, 4, 4)).copy()
    transforms[:, :, 2, 3] = 0.4
    as_float = partial(jnp.asarray, dtype=jnp.float32)
    return HandPlacement(
        as_float(np.broadcast_to(vertices, (frames, VERTICES, 3))),
        as_float(transforms),
        as_float(np.eye(JOINTS)[joint]),
        Capsules(as_float(starts), as_float(ends), jnp.full(JOINTS, 0.01), jnp.arange(JOINTS)),
        jnp.zeros(3),
        jnp.float32(0.1),
        jnp.float32(5.0),
        jnp.zeros((frames, POSE_NUMBERS)),
    )


def ray_step(config: FieldConfig, frames: int, rays: int) -> Callable[[], Any]:
    """A compiled update's gradient of a scene with a hand and an object."""
    params = init_scene(jax.random.key(0), config, hands={"right": POSE_NUMBERS}, frames=8)
    similarity = Similarity(
        jnp.full(frames, 0.4),
        jnp.broadcast_to(jnp.eye(3)[None], (frames, 3, 3)),
        jnp.broadcast_to(jnp.array([[0.1, 0.0, 2.1]]), (frames, 3)),
    )
    places = {
        "right": hand_of_rods(frames),
        "object": ObjectPlacement(similarity, jnp.arange(frames)),
    }
    slopes = np.random.default_rng(3).uniform(-0.15, 0.15, (frames, rays, 2))
    directions = np.concatenate([slopes, np.ones((frames, rays, 1))], axis=-1)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    directions = jnp.asarray(directions, jnp.float32)
    origins = jnp.zeros_like(directions)
    batch = Rays(origins, directions, jnp.arange(frames), jnp.full(directions.shape, 0.5))
    caches = init_caches(params, config)

    def loss(params, places, batch, caches, key):
        result = render(params, config, places, batch, caches, key, 5000)
        eikonal = sum(
            jnp.mean(jnp.square(jnp.linalg.norm(g, axis=-1) - 1.0))
            for g in result.gradients.values()
        )
        return jnp.mean(jnp.abs(result.color - 0.3)) + 0.1 * eikonal

    step = jax.jit(jax.value_and_grad(loss))
    arguments = (params, places, batch, caches, jax.random.key(1))
    return lambda: jax.block_until_ready(step(*arguments))


def measure_rays(repeats: int) -> None:
    sizes = {"seed": (2, 8), "hold": (2, 8), "fast": (2, 256)}
    runs = {name: ray_step(preset(name), *size) for name, size in sizes.items()}
    least = interleaved(runs, repeats)
    rates = {name: math.prod(sizes[name]) / least[name] for name in sizes}
    print("training rays: a hand and an object, samplers and background of the preset")
    for name, rate in rates.items():
        print(f"  {name:14s} {rate:8.1f} /s")
    print(f"  fast / seed    {rates['fast'] / rates['seed']:8.1f} times, per ray (aim 30)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--points", type=int, default=1024, help="of the wide networks")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print("one core, one thread")
    measure_points(arguments.points, arguments.repeats)
    measure_rays(max(arguments.repeats // 2, 1))


if __name__ == "__main__":
    main()

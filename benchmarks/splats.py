"""Speed of the Gaussian renderer and of a whole training step.

CPU (default): one core, one thread, the 13,564 points of the fox scene at 134x240 and 269x480: a
step is forward, loss with SSIM, backward and Adam. The aims are the times of OpenSplat 1.1.5, a
compiled C++ trainer, on one core of a comparable machine; if the program `opensplat` is on PATH it
is measured in the same run, by the difference of two step counts.

GPU (`--gpu`): the 138,766 points of gsplat's garden asset, once and in a 5x5 grid, at 648x420 and
1297x840, forward and forward with backward, with each backend that the device runs, beside gsplat
where it is installed with CUDA; then the parts of a training step with 1M Gaussians at 1297x840.
`--trial` runs the same functions with few points and small images, on any device.

Run: PODVISION_DATA=<folder> python benchmarks/splats.py [--gpu [--trial]] [--repeats 8] [--tile 8]
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

# This file has the name of the package that it measures: look for packages one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])
if "--gpu" in sys.argv:  # gsplat shares the device's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
else:  # Before jax is imported: one core, one thread.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 "
        + os.environ.get("XLA_FLAGS", "")
    )
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np
import optax

from splats.data import load_scene, neighbor_distances
from splats.gaussians.harmonic_basis import rgb_to_constant
from splats.losses.photometric import loss_sums
from splats.render import Camera, RenderSettings, render
from splats.render.rasterize import check_backend, rasterize, resolve_tile_size
from splats.render.renderer import project_to_screen
from splats.render.tiles import build_pairs
from training.errors import ConfigError

AIMS = {(134, 240): 99.0, (269, 480): 369.0}  # Milliseconds per step, OpenSplat 1.1.5, one thread.
FOLDERS = {(134, 240): 4, (269, 480): 2}
LEARNING_RATES = {
    "means": 1.6e-4,
    "scales": 5e-3,
    "quats": 1e-3,
    "opacities": 5e-2,
    "sh0": 2.5e-3,
    "shN": 1.25e-4,
}


def gaussians_of(points: np.ndarray, colors: np.ndarray) -> dict[str, jax.Array]:
    """Gaussians as training begins: sized by their neighbors, opacity 0.1."""
    count = len(points)
    size = np.log(np.maximum(neighbor_distances(points), 1e-4))
    arrays = {
        "means": points,
        "scales": np.repeat(size[:, None], 3, axis=1),
        "quats": np.random.default_rng(0).normal(size=(count, 4)),
        "opacities": np.full(count, np.log(0.1 / 0.9)),
        "sh0": np.asarray(rgb_to_constant(colors))[:, None, :],
        "shN": np.zeros((count, 15, 3)),
    }
    return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


def camera_of(world_to_camera, intrinsics) -> Camera:
    k = np.asarray(intrinsics, np.float32)
    values = (k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    return Camera(jnp.asarray(world_to_camera, jnp.float32), *(jnp.asarray(v) for v in values))


def measure(function, *arguments, repeats: int) -> tuple[float, float]:
    """Milliseconds of (median wall, least CPU) of a call that is compiled already."""
    jax.block_until_ready(function(*arguments))
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(function(*arguments))
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return 1e3 * float(np.median(wall)), 1e3 * min(cpu)


def enough_pairs(gaussians, camera, settings_with, guess: int = 4096) -> int:
    """The capacity for this view with 10 % to spare, found as a trainer would: grow and retry."""
    capacity = guess
    while True:
        output = jax.jit(render, static_argnums=2)(gaussians, camera, settings_with(capacity))
        if not bool(output.overflow):
            return int(1.1 * int(output.pairs_needed)) + 1
        capacity = max(2 * capacity, int(output.pairs_needed))


def stages(gaussians, camera, settings: RenderSettings, target):
    """The parts of a step as separate compiled functions with their arguments, in order."""
    tile_size = resolve_tile_size(settings.tile_size)
    grid = (-(-settings.height // tile_size), -(-settings.width // tile_size))

    def project(gaussians):
        return project_to_screen(gaussians, camera, settings)[0]

    def pairs(screen):
        return build_pairs(
            screen.means2d,
            screen.conics,
            screen.opacities,
            screen.extents,
            screen.depths,
            screen.visible,
            grid=grid,
            tile_size=tile_size,
            capacity=settings.pair_capacity,
        )

    def composite(means2d, conics, colors, opacities, listed):
        image, _ = rasterize(
            means2d,
            conics,
            colors,
            opacities,
            jnp.zeros(3),
            listed.pair_gaussian,
            listed.tile_offsets,
            width=settings.width,
            height=settings.height,
            tile_size=tile_size,
            backend=settings.backend,
        )
        return image

    def pulled(means2d, conics, colors, opacities, listed):
        drawn = partial(composite, listed=listed)
        return jax.vjp(drawn, means2d, conics, colors, opacities)[1](target)

    def loss(image):
        (error, count), (dissimilarity, _) = loss_sums(image, target).values()
        return 0.8 * error / count + 0.2 * dissimilarity

    projected = jax.jit(project)(gaussians)
    listed = jax.jit(pairs)(projected)
    screen = (projected.means2d, projected.conics, projected.channels, projected.opacities)
    image = jax.jit(composite)(*screen, listed)
    optimizer = optax.scale_by_adam(eps=1e-15)
    moments = optimizer.init(gaussians)

    def update(gaussians, moments, gradients):
        updated, moments = optimizer.update(gradients, moments)
        directions = cast(dict, updated)
        return {k: gaussians[k] - LEARNING_RATES[k] * directions[k] for k in gaussians}, moments

    def step(gaussians, moments):
        value, gradients = jax.value_and_grad(lambda g: loss(render(g, camera, settings).image))(
            gaussians
        )
        return value, update(gaussians, moments, gradients)

    return {
        "projection and colors": (jax.jit(project), (gaussians,)),
        "pair list": (jax.jit(pairs), (projected,)),
        "compositing forward": (jax.jit(composite), (*screen, listed)),
        "compositing forward + backward": (jax.jit(pulled), (*screen, listed)),
        "loss forward + backward": (jax.jit(jax.value_and_grad(loss)), (image,)),
        "Adam": (jax.jit(update), (gaussians, moments, gaussians)),
        "whole training step": (jax.jit(step), (gaussians, moments)),
    }


def opensplat_step(program: str, scene: Path, factor: int) -> float:
    """CPU milliseconds per step: (60 steps - 10 steps) / 50."""

    def spent(steps: int, folder: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        options = ["-d", str(factor), "--num-downscales", "0", "--cpu", "-n", str(steps)]
        subprocess.run(
            [program, str(scene), *options, "-o", f"{folder}/out.ply"],
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    with tempfile.TemporaryDirectory() as folder:
        return 1e3 * (spent(60, folder) - spent(10, folder)) / 50


def cpu_report(data: Path, options) -> None:
    folder = data / "splats/fox_pinhole"
    opensplat = shutil.which("opensplat")
    for (width, height), aim in AIMS.items():
        scene = load_scene(folder, factor=FOLDERS[width, height], normalize=False)
        view = int(scene.train[0])
        gaussians = gaussians_of(scene.points, scene.point_colors / 255.0)
        camera = camera_of(scene.world_to_camera[view], scene.intrinsics[view])
        target = jnp.asarray(scene.view(view), jnp.float32) / 255.0

        def settings(capacity, size=(width, height)):
            return RenderSettings(size[0], size[1], capacity, tile_size=options.tile)

        chosen = settings(enough_pairs(gaussians, camera, settings))
        print(
            f"\n{width}x{height}, {len(scene.points):,} Gaussians, {chosen.pair_capacity:,} slots"
        )
        print(f"{'part':34s} {'wall ms':>9s} {'CPU ms':>9s}")
        cpu = float("nan")
        for name, (function, arguments) in stages(gaussians, camera, chosen, target).items():
            wall, cpu = measure(function, *arguments, repeats=options.repeats)
            print(f"{name:34s} {wall:9.1f} {cpu:9.1f}", flush=True)
        print(f"aim {aim:.0f} ms: the step takes {cpu / aim:.2f} of it")
        if opensplat:
            peer = opensplat_step(opensplat, folder, FOLDERS[width, height])
            print(f"opensplat in this run: {peer:.1f} CPU ms, ratio {cpu / peer:.2f}")
    if not opensplat:
        print("\nopensplat is not on PATH: compared with the aims only")


class GardenSize(NamedTuple):
    """How much of the garden is drawn."""

    points: int  # of the asset's, evenly spread
    copies: tuple[int, ...]  # the scene is repeated in grids of these sides
    images: tuple[tuple[float, int, int], ...]  # factor of the focal length, width, height
    step_copies: int  # side of the grid of the training step
    step_gaussians: int  # of which so many are kept


GARDEN = GardenSize(138_766, (1, 5), ((1, 648, 420), (2, 1297, 840)), 3, 1_000_000)
TRIAL = GardenSize(1000, (1, 2), ((0.125, 81, 52),), 2, 3000)


def repeated(gaussians: dict[str, jax.Array], copies: int) -> dict[str, jax.Array]:
    """A square grid of copies of a scene, side by side in x and y."""
    means = np.asarray(gaussians["means"])
    span = means.max(axis=0) - means.min(axis=0)
    shifts = [span * np.array([i, j, 0]) for i in range(copies) for j in range(copies)]
    tiled = {
        name: jnp.asarray(np.concatenate([np.asarray(array)] * len(shifts)))
        for name, array in gaussians.items()
    }
    moved = np.concatenate([means + shift for shift in shifts]).astype(np.float32)
    return {**tiled, "means": jnp.asarray(moved)}


def backends_here(tile_size: int) -> list[str]:
    """The backends that the first device runs."""
    try:
        check_backend("mosaic_gpu", jax.devices()[0])
    except ConfigError as error:
        print(f"mosaic_gpu: not measured ({error})")
        return ["xla"]
    if tile_size == 8:
        print("mosaic_gpu: not measured (its tiles have 16 pixels)")
        return ["xla"]
    return ["xla", "mosaic_gpu"]


def gpu_report(data: Path, options) -> None:
    asset = np.load(data / "splats/garden/test_garden.npz")
    size = TRIAL if options.trial else GARDEN
    stride = max(len(asset["means3d"]) // size.points, 1)
    points, colors = asset["means3d"][::stride], asset["colors"][::stride]
    scene = gaussians_of(points, colors / 255.0 if colors.max() > 1.0 else colors)
    backends = backends_here(options.tile)
    print(f"device {jax.devices()[0].device_kind}; milliseconds forward / with backward")

    def view(factor):
        intrinsics = asset["Ks"][0] * np.array([[factor], [factor], [1]])
        return camera_of(asset["viewmats"][0], intrinsics)

    def settings_of(width, height, backend, capacity):
        return RenderSettings(width, height, capacity, tile_size=options.tile, backend=backend)

    for copies in size.copies:
        gaussians = repeated(scene, copies)
        for factor, width, height in size.images:
            camera = view(factor)
            capacity = enough_pairs(
                gaussians, camera, partial(settings_of, width, height, "xla"), 1 << 20
            )
            count = len(gaussians["means"])
            print(f"x{copies} {width}x{height}, {count:,} Gaussians, {capacity:,} slots")
            for backend in backends:
                chosen = settings_of(width, height, backend, capacity)
                ours = render_times(gaussians, camera, chosen, options.repeats)
                print(f"   {backend}: {ours[0]:.2f} / {ours[1]:.2f}", flush=True)
            peer = gsplat_times(gaussians, camera, width, height, options.repeats)
            print(f"   gsplat: {peer}", flush=True)

    gaussians = repeated(scene, size.step_copies)
    gaussians = {name: array[: size.step_gaussians] for name, array in gaussians.items()}
    factor, width, height = size.images[-1]
    target = jnp.asarray(np.random.default_rng(0).random((height, width, 3)), jnp.float32)
    capacity = enough_pairs(
        gaussians, view(factor), partial(settings_of, width, height, "xla"), 1 << 20
    )
    for backend in backends:
        chosen = settings_of(width, height, backend, capacity)
        print(f"\n{backend}, {width}x{height}, {len(gaussians['means']):,} Gaussians, "
              f"{capacity:,} slots")  # fmt: skip
        for name, (function, arguments) in stages(gaussians, view(factor), chosen, target).items():
            wall, _ = measure(function, *arguments, repeats=options.repeats)
            print(f"{name:34s} {wall:9.2f} ms", flush=True)


def render_times(gaussians, camera, settings: RenderSettings, repeats: int) -> list[float]:
    """Milliseconds of a rendering, and of one with its derivative."""

    def forward(gaussians):
        return render(gaussians, camera, settings).image

    def squares(gaussians):
        return jnp.sum(forward(gaussians) ** 2)

    functions = (jax.jit(forward), jax.jit(jax.grad(squares)))
    return [measure(function, gaussians, repeats=repeats)[0] for function in functions]


def gsplat_times(gaussians, camera, width: int, height: int, repeats: int) -> str:
    """Forward and forward + backward of gsplat on the same scene, or why there is no figure."""
    try:
        import torch
        from gsplat import rasterization
    except ImportError as error:
        return f"not measured ({error})"
    if not torch.cuda.is_available():
        return "not measured (torch has no CUDA device)"
    parts = {k: torch.tensor(np.array(v), device="cuda") for k, v in gaussians.items()}
    leaves = {k: v.requires_grad_() for k, v in parts.items()}
    pose = torch.tensor(np.array(camera.world_to_camera), device="cuda")[None]
    intrinsics = torch.eye(3, device="cuda")[None]
    intrinsics[0, 0, 0], intrinsics[0, 1, 1] = float(camera.fx), float(camera.fy)
    intrinsics[0, 0, 2], intrinsics[0, 1, 2] = float(camera.cx), float(camera.cy)

    def draw():
        return rasterization(
            leaves["means"],
            leaves["quats"],
            leaves["scales"].exp(),
            leaves["opacities"].sigmoid(),
            torch.cat([leaves["sh0"], leaves["shN"]], dim=1),
            pose,
            intrinsics,
            width,
            height,
            sh_degree=3,
            packed=False,
        )[0]

    def timed(backward: bool) -> float:
        times = []
        for _ in range(repeats + 2):
            for leaf in leaves.values():  # Gradients are new, not added to those of the last run.
                leaf.grad = None
            torch.cuda.synchronize()
            start = time.perf_counter()
            image = draw()
            if backward:
                (image**2).sum().backward()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return 1e3 * float(np.median(times[2:]))

    return f"{timed(False):.2f} / {timed(True):.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the Gaussian renderer.")
    parser.add_argument("--gpu", action="store_true", help="the garden scene on an accelerator")
    parser.add_argument("--trial", action="store_true", help="with --gpu: small, on any device")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--tile", type=int, default=0, help="8 or 16; 0 chooses by platform")
    options = parser.parse_args()
    data = os.environ.get("PODVISION_DATA")
    if data is None or not Path(data, "splats").is_dir():
        print("set PODVISION_DATA to the folder with the sample data; nothing was measured")
        return
    (gpu_report if options.gpu else cpu_report)(Path(data), options)


if __name__ == "__main__":
    main()

"""Compiles the renderer for an NVIDIA H100 on a machine that has none, and reports what comes out.

XLA and Mosaic GPU compile for a described device; nothing runs. Needed are jax, one of its CUDA
plugins and ptxas of the same CUDA release, no driver:

  pip install jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12

Whole training step (memory, kernels per step of each loop, sorts):
  python benchmarks/splats_compile.py step --gaussians 1000000 --slots 3000000 --backend xla

GPU kernels alone (registers, spills; PTX to a folder):
  python benchmarks/splats_compile.py kernels --output FOLDER
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ["JAX_PLATFORMS"] = "cpu"  # The plugin is loaded, but no device is looked for.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # What comes from a cache dumps no kernel.

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from splats.losses.photometric import loss_sums
from splats.render import Camera, RenderSettings, layout, mosaic, render
from splats.render.mosaic_kernels import CHUNK, TILE
from splats.render.rasterize import LOOP_SHAPES

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
# Public figures of an H100 SXM, in the form of XLA's GpuTargetConfigProto.
H100 = """
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 device_address_bits: 64
  driver_version: "13.0.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
COUNTED = ("fusion", "custom-call", "sort", "copy", "scatter", "gather", "dot", "transpose")


def missing_plugin() -> str | None:
    """Why nothing can be compiled here, or None."""
    if any(find_spec(name) for name in PLUGINS):
        return None
    return f"none of {', '.join(PLUGINS)} is installed"


def placement() -> NamedSharding:
    """The described device, as the place of abstract arguments."""
    described = topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1")
    return NamedSharding(topologies.make_mesh(described, (1,), ("device",)), PartitionSpec())


def compile_kernels(options, place) -> None:
    """Compiles both kernels by themselves; their PTX goes to the output folder."""
    width, height = options.width, options.height
    plan = layout.Plan(
        height=height, width=width, channels=options.channels, tile_size=TILE, lanes=1, chunk=8,
        backend="mosaic_gpu", absolute=True,
    )  # fmt: skip
    tiles, pixels = plan.grid[0] * plan.grid[1], TILE * TILE
    slots = -(-options.slots // CHUNK) * CHUNK
    row = layout.GEOMETRY + options.channels

    def abstract(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    packed = abstract(slots + plan.chunk, row + -row % 4)
    offsets = abstract(tiles + 1, dtype=jnp.int32)
    cotangent, image = abstract(tiles, pixels), abstract(tiles, options.channels, pixels)
    jax.jit(partial(mosaic.forward_tiles, plan)).lower(packed, offsets).compile()
    backward = jax.jit(partial(mosaic.backward_tiles, plan))
    backward.lower(packed, offsets, image, cotangent, cotangent).compile()


def compile_step(options, place):
    """The whole training step: render, loss with SSIM, derivative and Adam."""
    count, width, height = options.gaussians, options.width, options.height
    lanes, chunk = LOOP_SHAPES["gpu"]
    settings = RenderSettings(
        width, height, options.slots, tile_size=TILE, backend=options.backend,
        lanes=options.lanes or lanes, chunk=options.chunk or chunk,
    )  # fmt: skip
    optimizer = optax.scale_by_adam(eps=1e-15)

    def abstract(*shape) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)

    gaussians = {
        "means": abstract(count, 3), "scales": abstract(count, 3), "quats": abstract(count, 4),
        "opacities": abstract(count), "sh0": abstract(count, 1, 3), "shN": abstract(count, 15, 3),
    }  # fmt: skip
    moments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(optimizer.init, gaussians),
    )
    camera = Camera(abstract(4, 4), *(abstract() for _ in range(4)))

    def step(gaussians, moments, camera, target):
        def loss(gaussians):
            output = render(gaussians, camera, settings)
            (error, count), (dissimilarity, _) = loss_sums(output.image, target).values()
            return 0.8 * error / count + 0.2 * dissimilarity, output.overflow

        (value, overflow), gradients = jax.value_and_grad(loss, has_aux=True)(gaussians)
        updates, moments = optimizer.update(gradients, moments)
        moved = jax.tree.map(lambda old, update: old - 1e-3 * update, gaussians, updates)
        return value, overflow, moved, moments

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
        gaussians, moments, camera, abstract(height, width, 3)
    )
    return lowered.compile()


def computations(text: str) -> dict[str, list[str]]:
    """Lines of each computation of an optimized HLO module; the entry is named "ENTRY"."""
    found, current = {}, None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            current = found.setdefault("ENTRY" if head.group(1) else head.group(2), [])
        elif current is not None:
            current.append(line)
    return found


def kernel_counts(lines: list[str]) -> Counter:
    """How often each operation that starts a kernel stands in a computation."""
    named = (re.search(r" = .*? ([a-z\-]+)\(", line) for line in lines)
    return Counter(match.group(1) for match in named if match and match.group(1) in COUNTED)


def report_step(compiled) -> None:
    memory, text = compiled.memory_analysis(), compiled.as_text()
    print(f"temporary memory {memory.temp_size_in_bytes / 2**20:.0f} MiB, arguments "
          f"{memory.argument_size_in_bytes / 2**20:.0f} MiB, kept in place "
          f"{memory.alias_size_in_bytes / 2**20:.0f} MiB")  # fmt: skip
    parts = computations(text)
    print(f"outside of loops: {dict(kernel_counts(parts['ENTRY']))}")
    for line in (line for line in parts["ENTRY"] if " while(" in line):
        body = re.search(r"body=%?([\w.\-]+)", line)
        origin = re.search(r'op_name="([^"]*)"', line)
        if body:
            counts = dict(kernel_counts(parts[body.group(1)]))
            print(f"loop {origin.group(1) if origin else ''}: {counts} per step")
    doubles = text.count("f64[")
    dots = [line for line in text.splitlines() if " dot(" in line]
    rough = sum("operand_precision={highest,highest}" not in line for line in dots)
    print(f"float64 arrays: {doubles}; products below float32: {rough} of {len(dots)}")


def report_kernels(folder: Path) -> None:
    for path in sorted(folder.glob("*.ptxas")):
        found = re.findall(r"Used \d+ registers|\d+ bytes spill \w+", path.read_text())
        print(f"{path.stem}: {', '.join(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=("step", "kernels"))
    parser.add_argument("--output", type=Path, help="folder for the PTX of the kernels")
    parser.add_argument("--gaussians", type=int, default=1_000_000)
    parser.add_argument("--slots", type=int, default=3_000_000, help="pair slots")
    parser.add_argument("--width", type=int, default=1297)
    parser.add_argument("--height", type=int, default=840)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--backend", default="xla", choices=("xla", "mosaic_gpu"))
    parser.add_argument("--lanes", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=0)
    options = parser.parse_args()
    if reason := missing_plugin():
        print(f"{reason}; nothing was compiled")
        return
    folder = options.output or Path(tempfile.mkdtemp(prefix="kernels-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MOSAIC_GPU_DUMP_TO"] = str(folder)
    os.environ["MOSAIC_GPU_DUMP_PTX"] = os.environ["MOSAIC_GPU_DUMP_PTXAS"] = "1"
    start = time.perf_counter()
    if options.what == "kernels":
        compile_kernels(options, placement())
    else:
        report_step(compile_step(options, placement()))
    report_kernels(folder)
    print(f"compiled in {time.perf_counter() - start:.0f} s; kernels in {folder}")


if __name__ == "__main__":
    main()

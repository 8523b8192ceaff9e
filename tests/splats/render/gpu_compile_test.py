"""The GPU kernels compiled for an H100 that is not there, and their PTX run by an interpreter.

Skipped where no CUDA plugin of jax is installed: see `benchmarks/splats_compile.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from splats.render import layout, mosaic
from splats.render.mosaic_kernels import CHUNK
from tests.splats.render.composite_test import pairs_of
from tests.splats.render.ptx import Block
from tests.splats.render.scenes import composite_fixture

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks/splats_compile.py"
PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


def plan_of(height: int, width: int) -> layout.Plan:
    return layout.Plan(
        height=height, width=width, channels=3, tile_size=16, lanes=1, chunk=8,
        backend="mosaic_gpu_interpret", absolute=True,
    )  # fmt: skip


def aligned_pairs(name: str):
    """The pairs of a fixture as the kernels take them, and what to derive."""
    inputs, expected = composite_fixture(name)
    plan = plan_of(*expected["image"].shape[:2])
    pairs = pairs_of(inputs, plan.width, plan.height, 16)
    chosen, offsets = layout.align_pairs(
        pairs.pair_gaussian, pairs.tile_offsets, inputs["opacities"].shape[0], CHUNK
    )
    arrays = (inputs[key] for key in ("means2d", "conics", "opacities", "colors"))
    cotangents = (jnp.asarray(expected[key], jnp.float32) for key in ("ct_image", "ct_alpha"))
    return plan, layout.pack(plan, *arrays, chosen), offsets, tuple(cotangents)


def test_aligned_pairs_keep_their_order_and_every_tile_owns_whole_chunks():
    pairs = jnp.asarray([4, 2, 7, 1, 0, 3, 9, 9], jnp.int32)  # 9: no Gaussian.
    chosen, offsets = layout.align_pairs(pairs, jnp.asarray([0, 0, 3, 5, 6], jnp.int32), 9, 2)
    np.testing.assert_array_equal(offsets, [0, 0, 4, 6, 8])
    np.testing.assert_array_equal(chosen[:8], [4, 2, 7, 9, 1, 0, 3, 9])
    assert chosen.shape == (12,) and (np.asarray(chosen[8:]) == 9).all()


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> dict[str, str]:
    """PTX of both kernels and what the assembler said of them."""
    if not any(find_spec(name) for name in PLUGINS):
        pytest.skip(f"none of {', '.join(PLUGINS)} is installed")
    folder = tmp_path_factory.mktemp("kernels")
    plan, packed, _, _ = aligned_pairs("composite_f64")
    size = ["--height", plan.height, "--width", plan.width, "--slots", packed.shape[0] - plan.chunk]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    subprocess.run(
        [sys.executable, SCRIPT, "kernels", "--output", folder, *map(str, size)],
        check=True,
        env=environment,
    )
    found = {"report": "\n".join(path.read_text() for path in folder.glob("*.ptxas"))}
    return found | {path.name.split("_")[1]: path.read_text() for path in folder.glob("*.ptx")}


def test_kernels_assemble_for_hopper_without_spilling(kernels):
    assert kernels["report"].count("for 'sm_90a'") == 2
    assert kernels["report"].count("0 bytes spill stores, 0 bytes spill loads") == 2


@pytest.mark.parametrize("name", ["composite_f64", "composite_f64_saturated"])
def test_compiled_kernels_compute_what_their_source_says(kernels, name):
    plan, packed, offsets, cotangents = aligned_pairs(name)
    left, color = mosaic.forward_tiles(plan, packed, offsets)
    v = layout.to_tiles(plan, cotangents[0])
    v_alpha = layout.to_tiles(plan, cotangents[1][:, :, None])[:, 0, :]
    total = jnp.sum(v * color, axis=1) + v_alpha * (1.0 - left)
    sums = np.asarray(mosaic.backward_tiles(plan, packed, offsets, v, v_alpha, total)).T

    order, pixels, offsets, packed, v, v_alpha, total = (
        np.array(array)
        for array in (*mosaic.kernel_inputs(plan, offsets), packed, v, v_alpha, total)
    )
    outputs = [np.full(array.shape, np.nan, np.float32) for array in (left, color, sums)]
    # The compiler passes arrays in the order of their first use.
    forward = [order, pixels, offsets, packed, *outputs[:2]]
    backward = [order, pixels, v, v_alpha, total, offsets, packed, outputs[2]]
    for tile in range(len(order)):
        Block(kernels["forward"], forward, tile).run()
        Block(kernels["backward"], backward, tile).run()
    np.testing.assert_allclose(outputs[0], left, atol=1e-6)
    np.testing.assert_allclose(outputs[1], color, atol=1e-6)
    used = offsets[-1]
    for found, expected in zip(outputs[2][:, :used], sums[:, :used]):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())

"""The pod recipe's real update, compiled by libtpu for 16 chips that are not there.

About two CPU minutes: the whole update at full size, since a smaller one would say nothing of the
memory. Run by `make parity`, in the environment of the `tpu` extra.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from training.mesh import Layout, make_mesh
from training.program import Program
from training.registry import load_config, make_task

pytestmark = pytest.mark.tpu
pytest.importorskip("libtpu", reason="needs libtpu: pip install -e '.[tpu]'")

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "configs/jepa3d/v4_32.py"
CHIPS = 16
GIB = 2**30


@pytest.fixture(scope="module")
def update():
    """What `benchmarks/jepa3d_compile.py` reads from the compiled program."""
    script = ROOT / "benchmarks" / "jepa3d_compile.py"
    done = subprocess.run(
        [sys.executable, str(script), "--json", "--config", RECIPE],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ,
    )
    figures = json.loads(done.stdout)
    print(figures)
    return figures


def test_it_fits_a_chip_with_room_to_spare(update):
    """24 of 30.75 GiB, the rest for what the runtime and the next batches take."""
    assert update["chip_gib"] <= 24


def test_attention_is_the_kernel_and_runs_once(update):
    """Forward: the target encoder, and encoder and predictor of two mask sets; those four have two
    kernels each for the backward pass. More would be attention that is computed again."""
    assert update["kernels"] == 5 + 4 * 2


def test_nothing_is_replicated_by_accident(update):
    """Each chip holds the whole state, as the recipe says, and its own sixteenth of the batch."""
    config = load_config(RECIPE)
    # The shardings do not matter here: one device stands for all.
    program = Program(make_task(config), Layout(make_mesh(config.mesh, jax.devices()[:1])))

    def gib(tree):
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) / GIB

    state = gib(program.abstract_state)
    batch = gib(program.abstract_batches())
    # Rows of odd widths are padded to tiles: 2 % more than the bytes.
    assert state + batch / CHIPS <= update["argument_gib"] <= 1.02 * (state + batch / CHIPS)
    # Data parallelism only: gradients and means are summed, no activation or parameter travels.
    assert set(update["collectives"]) == {"all-reduce"}

"""Room for pairs fits itself to what is needed, with few compilations and the same bits."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from splats.gaussians.sizes import OVERFLOW, Sizes, saved_sizes
from tests.splats.scenes import batches, make_program, small_config, small_task
from training.resize import Window, spare


def sizes_of(pairs, too_few=0):
    return Sizes(256, pairs, too_few_pairs=too_few)


@pytest.mark.parametrize(
    "room, needed, fitted",
    [
        (1 << 20, 41_000, 1 << 17),
        (1 << 18, 41_000, 1 << 17),
        (1 << 17, 41_000, 1 << 17),
        (1 << 16, 41_000, 1 << 16),  # growth waits for an update that does not fit
        (3000, 700, 3000),  # not a power of two: 2048 would hardly be less
        (1 << 10, 0, 1),
    ],
)
def test_room_goes_down_to_twice_the_need_once_it_is_four_times_as_much(room, needed, fitted):
    assert sizes_of(room).spared(needed)[0].pair_capacity == fitted


def test_room_that_was_too_small_once_is_never_returned_to():
    grown = sizes_of(4096).grown(OVERFLOW, small_config())
    assert grown == sizes_of(8192, too_few=4096)
    assert grown.spared(10)[0] == grown
    assert sizes_of(1 << 15, too_few=4096).spared(10)[0] == sizes_of(8192, too_few=4096)
    assert saved_sizes(grown.to_metadata()) == grown


def test_compilations_are_bounded_whatever_is_needed():
    generator = np.random.default_rng(0)
    sizes, changes, largest = sizes_of(1 << 20), 0, 1 << 18
    for _ in range(2000):
        needed = 2 ** generator.uniform(4, 18)
        while needed > sizes.pair_capacity:
            sizes, changes = sizes.grown(OVERFLOW, small_config()), changes + 1
        fitted, _ = sizes.spared(needed)
        changes, sizes = changes + (fitted != sizes), fitted
    # Every growth ends one number for good, and between two of them it only shrinks.
    assert changes <= 2 * np.log2(largest)
    assert sizes.pair_capacity <= 2 * largest


@pytest.mark.usefixtures("quick_compilation")
def test_room_given_back_changes_no_bit_and_uploads_nothing():
    config = replace(small_config().render, pair_capacity=1 << 14)
    program = make_program(small_task(render=config))
    said = []
    with jax.set_mesh(program.layout.mesh):
        state, read = program.step(program.initial_state(), batches(program, range(1)))
        (row,) = read()
        run = SimpleNamespace(
            program=program,
            state=jax.tree.map(lambda leaf: leaf.copy(), state),
            window=Window(),
            progress=SimpleNamespace(say=said.append),
            writer=SimpleNamespace(write=lambda step, values: None),
            interlude=lambda event: jax.set_mesh(program.layout.mesh),
        )
        spare(run, [row] * 99)
        assert run.program is program and not said
        spare(run, [row | {"pairs": 10.0}])
        assert run.program.resident is program.resident
        results = []
        for one, start in ((program, state), (run.program, run.state)):
            after, read = one.step(start, batches(one, range(1, 2)))
            results.append((read()[0]["loss"], jax.device_get(after.params)))
    fitted = run.program.task.sizes.pair_capacity
    assert 2 * row["pairs"] <= fitted < 4 * row["pairs"] and fitted <= 1 << 13
    assert f"room for {fitted:,} pairs" in said[0] and "instead of 16,384" in said[0]
    (loss, params), (same_loss, same_params) = results
    assert loss == same_loss
    jax.tree.map(np.testing.assert_array_equal, params, same_params)

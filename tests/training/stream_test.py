"""Which example is read where: permutations, rows of processes, resume, replacement, evaluation."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.toy import ToySource
from training.config import LoaderConfig, MeshConfig
from training.errors import ConfigError, DataFault, InputError
from training.mesh import Layout, make_mesh
from training.order import ExampleOrder
from training.reading import stack_examples
from training.stream import (
    ExampleStream,
    gather_positions,
    host_rows_are_unique,
    prefetched,
)


class BrokenSource(ToySource):
    """A toy source of which some examples cannot be read."""

    def __init__(self, length, broken):
        super().__init__(length)
        object.__setattr__(self, "broken", frozenset(broken))

    def __getitem__(self, index):
        if index in self.broken:
            raise InputError(f"file {index}.dcm is truncated; fetch it again")
        return super().__getitem__(index)


def layout_of(devices=8):
    return Layout(make_mesh(MeshConfig(), jax.devices()[:devices]))


def open_stream(source, size=8, rows=None, seed=3, **settings):
    rows = np.arange(size) if rows is None else rows
    return ExampleStream(source, seed, size, rows, LoaderConfig(workers=3, **settings))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**31), st.integers(0, 50))
def test_each_epoch_is_a_permutation(length, seed, epoch):
    order = ExampleOrder(length, seed)
    indices = [order.index(epoch * length + i) for i in range(length)]
    assert sorted(indices) == list(range(length))


def test_epochs_and_seeds_have_orders_of_their_own():
    def epoch(seed, number):
        order = ExampleOrder(100, seed)
        return tuple(order.index(number * 100 + i) for i in range(100))

    orders = {epoch(seed, number) for seed in (0, 1, 2) for number in (0, 1, 2)}
    assert len(orders) == 9
    for order in orders:
        moved = np.mean(np.array(order) != np.arange(100))
        assert moved > 0.9


def test_the_order_does_not_depend_on_where_reading_starts():
    forward = ExampleOrder(7, 5)
    expected = [forward.index(i) for i in range(60)]
    backward = ExampleOrder(7, 5)
    assert [backward.index(i) for i in reversed(range(60))] == expected[::-1]


def test_a_seed_that_cannot_number_a_permutation_is_refused():
    with pytest.raises(ConfigError, match=r"config\.seed = 18446744073709551616 does not fit"):
        ExampleOrder(10, 2**64)
    assert sorted(ExampleOrder(5, -1).index(i) for i in range(5)) == list(range(5))


def test_an_empty_source_is_refused():
    with pytest.raises(InputError, match="no examples; check the data folder and split"):
        ExampleOrder(0, 0)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_rows_of_all_processes_are_the_batch_of_one_process(groups):
    source = ToySource(30)
    whole = open_stream(source)
    parts = [open_stream(source, rows=np.arange(8)[g::groups]) for g in range(groups)]
    for step in (0, 1, 3, 17):
        batch = whole.batch(step)
        locals_ = [part.batch(step) for part in parts]
        together = np.concatenate([part["position"] for part in locals_])
        assert host_rows_are_unique(together, 8)
        order = np.argsort(together)
        for key in batch:
            np.testing.assert_array_equal(
                np.concatenate([part[key] for part in locals_])[order], batch[key]
            )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 500))
def test_a_stream_opened_at_any_step_continues_the_same_examples(step):
    source = ToySource(23)
    through = open_stream(source)
    resumed = open_stream(source)
    if step > 2:
        through.batch(step - 1)
    a, b = through.batch(step), resumed.batch(step)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    np.testing.assert_array_equal(a["position"], np.arange(step * 8, step * 8 + 8))


def test_another_batch_size_continues_at_the_same_position():
    source = ToySource(23)
    small, large = open_stream(source, 4), open_stream(source, 8)
    indices = np.concatenate([small.batch(6)["index"], small.batch(7)["index"]])
    np.testing.assert_array_equal(indices, large.batch(3)["index"])


def test_every_example_is_read_once_in_an_epoch_also_across_its_boundary():
    stream = open_stream(ToySource(20), 8)
    indices = np.concatenate([stream.batch(step)["index"] for step in range(5)])
    assert sorted(indices[:20]) == sorted(indices[20:]) == list(range(20))


def test_an_unreadable_example_is_replaced_alike_on_every_run_and_counted(capfd):
    source = BrokenSource(50, {7, 8})
    healthy = open_stream(ToySource(50), max_replaced_fraction=1.0)
    runs = [open_stream(source, max_replaced_fraction=1.0) for _ in range(2)]
    for step in range(12):
        first, second = (run.batch(step) for run in runs)
        np.testing.assert_array_equal(first["index"], second["index"])
        wanted = healthy.batch(step)["index"]
        same = ~np.isin(wanted, [7, 8])
        np.testing.assert_array_equal(first["index"][same], wanted[same])
        assert not np.isin(first["index"], [7, 8]).any()
        for row, index in enumerate(first["index"]):
            np.testing.assert_array_equal(first["x"][row], ToySource()[index]["x"])
    assert runs[0].replaced == runs[1].replaced >= 2
    assert runs[0].read == 96 and healthy.replaced == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("replaced")]
    assert len(lines) == 2 * runs[0].replaced
    assert all("is truncated; fetch it again" in line for line in lines)


def test_substitutes_depend_on_position_attempt_and_seed():
    """One that always stands in would be trained on as often as all that are unreadable."""
    order, other = ExampleOrder(1000, 0), ExampleOrder(1000, 1)
    drawn = [order.substitute(position, 1) for position in range(50)]
    assert len(set(drawn)) > 40
    assert drawn != [order.substitute(position, 2) for position in range(50)]
    assert drawn != [other.substitute(position, 1) for position in range(50)]


def test_too_many_replacements_stop_the_run_with_both_numbers():
    stream = open_stream(BrokenSource(50, range(5)), max_replaced_fraction=0.02)
    sentence = r"\d+ of 1\d\d examples could not be read, above config\.loader\.max_replaced"
    with pytest.raises(DataFault, match=sentence):
        for step in range(50):
            stream.batch(step)
    assert stream.read >= 100


def test_replacements_below_the_threshold_do_not_stop_the_run():
    stream = open_stream(BrokenSource(400, {11}), max_replaced_fraction=0.02)
    for step in range(50):
        stream.batch(step)
    assert stream.replaced == 1


def test_a_source_of_which_nothing_can_be_read_stops_at_once():
    stream = open_stream(BrokenSource(50, range(50)), max_replaced_fraction=1.0)
    with pytest.raises(DataFault, match="10 examples in a row could not be read"):
        stream.batch(0)


def test_an_error_that_is_not_about_the_input_is_not_swallowed():
    class Crashing(ToySource):
        def __getitem__(self, index):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        open_stream(Crashing(8)).batch(0)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"x": np.zeros(3, np.float32), "y": 1}, "differ in keys"),
        ({"x": np.zeros(4, np.float32)}, r"differ in the shape of 'x': \(3,\) and \(4,\)"),
        ({"x": np.zeros(3, np.float64)}, "differ in the dtype of 'x': float32 and float64"),
    ],
)
def test_examples_that_do_not_stack_are_named(other, sentence):
    with pytest.raises(ConfigError, match=sentence):
        stack_examples([{"x": np.zeros(3, np.float32)}, other])


@pytest.mark.parametrize("depth", [1, 3])
def test_prefetched_chunks_are_the_batches_of_the_plan_in_order(depth):
    stream, layout = open_stream(ToySource(20), prefetch=depth), layout_of()
    plan = [(0, 2), (2, 1), (3, 3)]
    chunks = list(prefetched(stream, plan, layout))
    assert [(chunk.first_step, chunk.updates) for chunk in chunks] == plan
    fresh = open_stream(ToySource(20))
    for chunk in chunks:
        for i in range(chunk.updates):
            expected = fresh.batch(chunk.first_step + i)
            for key, value in expected.items():
                np.testing.assert_array_equal(chunk.device[key][i], value)
                np.testing.assert_array_equal(chunk.host[i][key], value)


def test_a_fault_in_the_prefetch_thread_reaches_the_loop():
    stream = open_stream(BrokenSource(50, range(50)), prefetch=2)
    with pytest.raises(DataFault):
        list(prefetched(stream, [(0, 1), (1, 1)], layout_of()))


def test_a_source_may_not_use_the_keys_that_the_stream_adds():
    class Indexed(ToySource):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "index": index}

    with pytest.raises(ConfigError, match="'index'"):
        open_stream(Indexed(8)).batch(0)


def test_the_gathered_positions_tell_whether_rows_are_read_twice():
    layout = layout_of()
    positions = gather_positions(open_stream(ToySource(64), 16), 5, layout)
    np.testing.assert_array_equal(positions, np.arange(80, 96))
    assert host_rows_are_unique(positions, 16)
    twice = open_stream(ToySource(64), 16, rows=np.tile(np.arange(8), 2))
    assert not host_rows_are_unique(gather_positions(twice, 5, layout), 16)
    assert not host_rows_are_unique(positions[:8], 16)

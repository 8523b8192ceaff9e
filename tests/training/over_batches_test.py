"""Evaluation over batches: every example once, whatever the lengths, the mesh and the readers."""

from __future__ import annotations

import dataclasses
import math
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.readers import happens, reader_threads
from tests.training.toy import ToySource
from training import distributed
from training.config import MeshConfig
from training.errors import ConfigError, InputError
from training.mesh import Layout, make_mesh
from training.over_batches import BatchResult, batches_of, from_all_hosts, over_batches

LENGTHS = [(10, 8), (16, 8), (3, 8), (17, 16), (1, 8), (9, 3)]


def layout_of(devices=8, **axes):
    return Layout(make_mesh(MeshConfig(**axes), jax.devices()[:devices]))


@dataclasses.dataclass(frozen=True)
class Everything:
    """Sums, rows and local rows of the toy examples, with a factor as argument."""

    def __call__(self, factor, batch):
        x = batch["x"] * factor
        return BatchResult(
            sums={"x": jnp.sum(x * batch["weight"][:, None], 0), "count": batch["weight"].sum()},
            rows={"x": x, "index": batch["index"]},
            local={"pair": (x, batch["index"])},
        )


def sweep(source, size, layout, **options):
    with jax.set_mesh(layout.mesh):
        return over_batches(Everything(), (jnp.float32(2),), source, size, layout, **options)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(("length", "size"), LENGTHS)
def test_every_example_counts_once_and_what_fills_up_a_batch_never(length, size, devices):
    source = ToySource(length, start=100)
    swept = sweep(source, size, layout_of(devices))
    wanted = 2 * np.stack([source[i]["x"] for i in range(length)])
    assert swept.sums["count"] == length
    # float32 sums inside of a batch, whose order depends on the mesh.
    bound = 16 * np.finfo(np.float32).eps * np.abs(wanted).sum(0)
    assert np.all(np.abs(swept.sums["x"] - wanted.astype(np.float64).sum(0)) <= bound)
    np.testing.assert_array_equal(swept.rows["x"], wanted)
    np.testing.assert_array_equal(swept.rows["index"], np.arange(length))


@pytest.mark.parametrize("axes", [{"data": -1}, {"data": 2, "fsdp": 2, "model": 2}, {"model": 8}])
def test_examined_are_the_chosen_examples_once_each_and_in_order(axes):
    source, seen = ToySource(21), []

    def examine(index, local):
        x, own_index = local["pair"]
        assert own_index == index
        np.testing.assert_array_equal(x, 2 * source[index]["x"])
        seen.append(index)
        # Runs on one device of this host, not on the mesh of the run.
        assert len(jax.jit(jnp.sum)(jnp.asarray(x)).sharding.device_set) == 1
        return float(x[0])

    swept = sweep(source, 8, layout_of(**axes), examine=examine, chosen=(20, 3, 8))
    assert seen == list(swept.examined) == [3, 8, 20]
    assert sweep(source, 8, layout_of(**axes)).examined == {}
    swept = sweep(source, 8, layout_of(**axes), examine=lambda index, local: index)
    assert swept.examined == {i: i for i in range(21)}
    assert from_all_hosts({3: [1.5], 1: "a"}) == {1: "a", 3: [1.5]}


def test_only_rows_and_sums_are_gathered_and_local_rows_stay_on_their_devices(monkeypatch):
    from training import over_batches as module

    seen, compiled = [], module._compiled

    def watched(function, layout):
        def call(*arguments):
            seen.append(compiled(function, layout)(*arguments))
            return seen[-1]

        return call

    monkeypatch.setattr(module, "_compiled", watched)
    sweep(ToySource(16), 16, layout_of())
    (result,) = seen
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves((result.sums, result.rows)))
    for leaf in jax.tree.leaves(result.local):
        assert leaf.addressable_shards[0].data.shape[0] == 2


def test_a_batch_size_is_rounded_up_to_what_the_mesh_can_split():
    with jax.set_mesh(layout_of().mesh):
        shapes = {b["x"].shape for b, _ in batches_of(ToySource(30), 16, layout_of(), 2)}
    assert shapes == {(16, 8)}, "shapes never change, or the program would be compiled anew"
    assert sweep(ToySource(10), 3, layout_of()).sums["count"] == 10


def test_an_equal_function_is_compiled_once():
    traces = []

    @dataclasses.dataclass(frozen=True)
    class Counted:
        scale: float

        def __call__(self, batch):
            traces.append(self.scale)
            return BatchResult(sums=batch["weight"].sum() * self.scale)

    layout = layout_of()
    for scale in (1.0, 1.0, 3.0):
        assert over_batches(Counted(scale), (), ToySource(20), 8, layout).sums == 20 * scale
    assert traces == [1.0, 3.0]


def test_sums_of_many_batches_are_added_exactly():
    """float32 stops counting at 2^24."""

    def large_first(batch):
        return BatchResult(sums=jnp.where(batch["index"][0] == 0, 2.0**24, 1.0))

    assert over_batches(large_first, (), ToySource(24), 8, layout_of()).sums == 2**24 + 2


class Watched(ToySource):
    """Remembers which examples were read; example `broken` cannot be."""

    def __init__(self, length, broken=-1):
        super().__init__(length)
        for name, value in {"broken": broken, "seen": [], "lock": threading.Lock()}.items():
            object.__setattr__(self, name, value)

    def __getitem__(self, index):
        with self.lock:
            self.seen.append(index)
        if index == self.broken:
            raise InputError(f"file {index}.jpg is cut off; fetch it again")
        return super().__getitem__(index)


def test_an_unreadable_example_ends_the_evaluation_with_its_sentence_and_no_reader_stays():
    before = reader_threads()
    with pytest.raises(InputError, match=r"13\.jpg is cut off"):
        sweep(Watched(40, broken=13), 8, layout_of())
    assert happens(lambda: reader_threads() <= before)


def test_a_stop_ends_the_evaluation_between_batches(monkeypatch):
    source, calls = Watched(8 * 40), []

    def asked_at_the_fourth_batch():
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(distributed, "raise_if_stopping", asked_at_the_fourth_batch)
    with pytest.raises(KeyboardInterrupt):
        sweep(source, 8, layout_of())
    assert len(calls) == 4 and len(source.seen) < 8 * 10


def test_readers_work_ahead_by_a_bounded_number_of_batches():
    source = Watched(8 * 40)
    batches = batches_of(source, 8, layout_of(), 3)
    for _ in range(5):
        next(batches)
    batches.close()
    # Five in hand, two on the devices, one being stacked, two at most asked for after it.
    assert 5 * 8 <= len(source.seen) <= 10 * 8


def test_an_empty_source_is_refused():
    with pytest.raises(InputError, match="evaluation source has no examples"):
        sweep(ToySource(0), 8, layout_of())


def test_a_source_may_not_use_the_keys_that_are_added():
    class Weighted(ToySource):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "weight": np.float32(1), "index": index}

    with pytest.raises(ConfigError, match="'index', 'weight'"):
        sweep(Weighted(8), 8, layout_of())


def test_numbers_that_are_not_finite_in_rows_that_fill_up_stay_out_of_rows():
    class LastIsNan(ToySource):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            return {**example, "x": example["x"] * (math.nan if index == 9 else 1)}

    rows = sweep(LastIsNan(10), 8, layout_of()).rows["x"]
    assert np.isnan(rows).any(axis=1).tolist() == [False] * 9 + [True]

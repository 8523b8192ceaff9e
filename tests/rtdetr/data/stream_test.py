"""Detection examples through the core's stream: hosts, resumed runs, unreadable files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from rtdetr.config import AugmentConfig, DataConfig, PhaseConfig
from rtdetr.data.source import DetectionSource
from tests.rtdetr.data.memory_dataset import Entry, MemoryDataset, blocks
from training.config import LoaderConfig
from training.errors import InputError
from training.stream import ExampleStream

CONFIG = DataConfig(
    size=(64, 96),
    scales=((64, 96), (96, 96)),
    max_objects=6,
    augment=AugmentConfig(mosaic=0.5, mixup=0.5, mixed=PhaseConfig(0, 1)),
)
BATCH, UPDATES = 4, 12
LENIENT = LoaderConfig(workers=2, max_replaced_fraction=1.0)


def stream_of(dataset, rows: Sequence[int] = range(BATCH), config=CONFIG, loader=LENIENT):
    source = DetectionSource(dataset, config, 5, BATCH, UPDATES, augmented=True)
    return ExampleStream(source, 5, BATCH, np.array(rows), loader)


def same(one, other, rows: object = slice(None)):
    return all((one[key][rows] == other[key]).all() for key in other)


def test_two_hosts_read_together_what_one_reads():
    dataset = blocks(9)
    alone = stream_of(dataset)
    hosts = [stream_of(dataset, rows) for rows in ([0, 2], [1, 3])]
    for step in range(UPDATES):
        whole = alone.batch(step)
        for host, rows in zip(hosts, ([0, 2], [1, 3])):
            assert same(whole, host.batch(step), rows)


def test_a_resumed_run_sees_the_batches_that_it_would_have_seen():
    dataset = blocks(9)
    first, resumed = stream_of(dataset), stream_of(dataset)
    batches = [first.batch(step) for step in range(UPDATES)]
    assert len({batch["image"].shape for batch in batches}) == 2
    for step in range(7, UPDATES):
        assert same(batches[step], resumed.batch(step))


def test_unreadable_files_are_replaced_and_counted():
    damaged = [*blocks(8).entries, Entry(blocks(1).entries[0].encoded[:60], (60, 60))]
    stream = stream_of(MemoryDataset(damaged))
    for step in range(9):  # four epochs
        batch = stream.batch(step)
        assert 8 not in batch["index"]
    # Once an epoch, and not again where mosaic and mixup would have taken it.
    assert stream.replaced == 4 and stream.read == 9 * BATCH


def test_partners_that_are_all_unreadable_end_the_search():
    damaged = [blocks(1).entries[0], *[Entry(b"no image", (60, 60))] * 200]
    config = dataclasses.replace(CONFIG, augment=AugmentConfig(mosaic=1, mixed=PhaseConfig(0, 1)))
    source = DetectionSource(MemoryDataset(damaged), config, 5, BATCH, UPDATES, augmented=True)
    with pytest.raises(InputError, match="cannot be read"):
        source.load(0, 0)


def test_a_batch_without_any_object_is_a_batch():
    empty = [dataclasses.replace(entry, boxes=(), labels=()) for entry in blocks(4).entries]
    batch = stream_of(MemoryDataset(empty)).batch(0)
    assert (batch["labels"] == -1).all() and not batch["boxes"].any() and not batch["dropped"].any()

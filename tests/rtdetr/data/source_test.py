"""`DetectionSource`: pure in the position, of constant shape, and errors that name the image."""

from __future__ import annotations

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rtdetr.boxes import cxcywh_norm
from rtdetr.config import AugmentConfig, DataConfig, PhaseConfig
from rtdetr.data.source import DetectionSource
from tests.rtdetr.data.memory_dataset import (
    COLORS,
    Entry,
    MemoryDataset,
    blocks,
    painted_extent,
    png,
)
from training.errors import InputError
from training.reading import Readers

EVERYTHING = AugmentConfig(mosaic=0.5, mixup=0.5, vertical_flip=0.5, mixed=PhaseConfig(0.0, 0.5))
CONFIG = DataConfig(
    size=(96, 128),
    scales=((64, 96), (96, 128), (128, 160)),
    max_objects=8,
    augment=EVERYTHING,
)
BATCH, UPDATES = 4, 50


def source_of(dataset=None, config=CONFIG, seed=3, augmented=True, batch_size=BATCH):
    dataset = dataset or blocks()
    return DetectionSource(dataset, config, seed, batch_size, UPDATES, augmented)


def as_bytes(example):
    return {key: (value.dtype, value.shape, value.tobytes()) for key, value in example.items()}


def test_examples_have_the_promised_types():
    source = source_of()
    for example in (source[0], source.load(1, 17)):
        assert example["image"].dtype == np.uint8 and example["image"].shape[2] == 3
        assert example["content"].dtype == np.int32 and example["content"].shape == (2,)
        assert example["boxes"].dtype == np.float32 and example["boxes"].shape == (8, 4)
        assert example["labels"].dtype == np.int32 and example["labels"].shape == (8,)
        assert example["dropped"].dtype == np.int32 and example["dropped"].shape == ()
        valid = example["labels"] >= 0
        assert (np.diff(valid.astype(int)) <= 0).all()  # objects first
        assert (example["labels"][~valid] == -1).all() and (example["boxes"][~valid] == 0).all()


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_the_plain_example_shows_the_objects_where_its_boxes_are(resize):
    config = dataclasses.replace(CONFIG, resize=resize)
    dataset = blocks()
    source = source_of(dataset, config)
    for index in range(len(source)):
        example = source[index]
        count = (example["labels"] >= 0).sum()
        assert count == len(dataset.entries[index].boxes)
        corners = cxcywh_norm(example["boxes"][:count]).pixels(np.array(config.size)).values
        for label, box in zip(example["labels"], corners):
            others = sum(other == label for other in example["labels"])
            found = painted_extent(example["image"], COLORS[label])
            if others == 1:
                assert np.abs(found - box).max() <= 1.5
    assert source[-1]["image"].tobytes() == source[len(source) - 1]["image"].tobytes()
    with pytest.raises(IndexError):
        source[len(source)]


def test_an_example_belongs_to_its_position_whoever_reads_it():
    source = source_of()
    positions = np.random.default_rng(0).permutation(40)
    alone = {p: as_bytes(source.load(p % len(source), p)) for p in range(40)}
    fresh = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(lambda p: as_bytes(fresh.load(int(p) % len(fresh), int(p))), positions)
        assert dict(zip(positions.tolist(), read)) == alone
    assert len({example["image"][2] for example in alone.values()}) == 40


def test_reader_processes_read_the_same_pixels():
    source = source_of()
    readers = Readers(source, workers=0, processes=1)
    try:
        for position in (0, 7, 33):
            there = readers.load(position % len(source), position)
            assert as_bytes(there) == as_bytes(source.load(position % len(source), position))
    finally:
        readers.close()


def test_another_seed_draws_other_changes():
    one, other = source_of(seed=3), source_of(seed=4)
    assert any(
        one.load(0, p)["image"].tobytes() != other.load(0, p)["image"].tobytes() for p in (0, 1)
    )
    assert one[0]["image"].tobytes() == other[0]["image"].tobytes()


def test_all_examples_of_an_update_have_its_canvas_whatever_the_host_reads():
    source = source_of()
    for update in range(UPDATES):
        shapes = {source.load(0, update * BATCH + row)["image"].shape[:2] for row in range(BATCH)}
        assert shapes == {source.shape_at(update)}


def test_without_augmentation_every_example_is_the_plain_one():
    source = source_of(augmented=False)
    for position in range(0, 60, 7):
        assert as_bytes(source.load(1, position)) == as_bytes(source[1])
    assert {source.shape_at(update) for update in range(UPDATES)} == {CONFIG.size}


def test_at_the_end_of_the_run_only_flips_are_left():
    config = dataclasses.replace(
        CONFIG,
        scale_phase=PhaseConfig(0, 0.9),
        augment=dataclasses.replace(EVERYTHING, strong=PhaseConfig(0, 0.9)),
    )
    source = source_of(config=config)
    plain = source[0]["image"]
    flipped = {f(plain).tobytes() for f in (lambda x: x, np.flipud, np.fliplr, np.rot90)}
    flipped.add(plain[::-1, ::-1].tobytes())
    first = int(0.9 * UPDATES) * BATCH
    seen = {source.load(0, first + i)["image"].tobytes() for i in range(UPDATES * BATCH - first)}
    assert seen <= flipped and len(seen) == 4
    assert source.load(0, first - 1)["image"].tobytes() not in flipped


def test_crowds_are_no_targets():
    pixels = np.full((64, 64, 3), 90, np.uint8)
    entry = Entry(png(pixels), (64, 64), [(4, 4, 20, 20), (0, 0, 60, 60)], [1, 2], [False, True])
    example = source_of(MemoryDataset([entry]), dataclasses.replace(CONFIG, size=(64, 64)))[0]
    assert example["labels"].tolist() == [1, *[-1] * 7]
    assert example["boxes"][0] == pytest.approx([14 / 64, 14 / 64, 20 / 64, 20 / 64], abs=1e-6)


def test_of_too_many_objects_the_largest_stay_and_the_others_are_counted():
    boxes = [(i * 6, 2, 3 + i % 4, 10 + i) for i in range(11)]
    entry = Entry(png(np.zeros((80, 80, 3), np.uint8)), (80, 80), boxes, [i % 3 for i in range(11)])
    config = dataclasses.replace(CONFIG, size=(96, 96), max_objects=4)
    example = source_of(MemoryDataset([entry]), config)[0]
    area = [w * h for _, _, w, h in boxes]
    largest = sorted(np.argsort(area)[-4:])
    assert example["dropped"] == 7
    assert example["labels"].tolist() == [i % 3 for i in largest]
    assert (np.diff(example["boxes"][:, 0]) > 0).all()  # in their order
    assert example["boxes"][:, 2] * 80 == pytest.approx([boxes[i][2] for i in largest], abs=1e-4)


def test_an_image_without_objects_is_an_example():
    source = source_of()
    assert (source[3]["labels"] == -1).all()
    assert source.load(3, 199)["image"].any()  # at the end: no mosaic, no mixup


def test_an_unreadable_image_is_named_for_the_core_to_replace():
    entries = [*blocks(2).entries, Entry(b"no image", (60, 60))]
    source = source_of(MemoryDataset(entries))
    for read in (lambda: source[2], lambda: source.load(2, 5)):
        with pytest.raises(InputError, match=r"image_2\.png cannot be read"):
            read()
    assert source[1]["image"].any()


def test_an_image_of_another_size_than_annotated_is_named():
    entry = blocks(1).entries[0]
    other = dataclasses.replace(entry, size=(entry.size[1] + 1, entry.size[0]))
    with pytest.raises(InputError, match=r"image_0\.png is .* annotated on .*prepare"):
        source_of(MemoryDataset([other]))[0]


def test_the_identity_is_the_content_not_the_place():
    one, other = blocks(3, seed=0), blocks(3, seed=1)
    again = MemoryDataset(list(reversed(one.entries)))
    first, second, third = source_of(one), source_of(other), source_of(again)
    names = [one.name(i) == other.name(i) for i in range(3)]
    assert all(names)  # as exports of different images have it
    assert not {first.identity(i) for i in range(3)} & {second.identity(i) for i in range(3)}
    assert [first.identity(i) for i in range(3)] == [third.identity(2 - i) for i in range(3)]

"""Readers: threads and processes give the same examples; what goes wrong in one is said."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest

from tests.training.readers import Augmenting, Slow, happens, reader_threads
from tests.training.toy import ToySource
from training import distributed
from training.config import LoaderConfig, MeshConfig
from training.errors import ConfigError, DataFault, InputError
from training.mesh import Layout, make_mesh
from training.reading import ReadAhead, Readers
from training.stream import ExampleStream, prefetched

SIZE, STEPS = 8, 6
LAYOUT = Layout(make_mesh(MeshConfig(), jax.devices()[:1]))


def open_stream(source=None, rows=None, workers=3, processes=0, prefetch=2):
    rows = np.arange(SIZE) if rows is None else rows
    config = LoaderConfig(workers, processes, prefetch, max_replaced_fraction=1.0)
    return ExampleStream(source or Augmenting(broken=(4, 9)), 3, SIZE, rows, config)


class PartOfAPod:
    """The layout of a host that has only its own rows."""

    def put_batches(self, local, batch_size):
        return {name: np.stack([batch[name] for batch in local]) for name in local[0]}


def contents(stream, first=0, layout=LAYOUT):
    """x, index and position of some batches, with what was counted after each."""
    plan = [(step, 1) for step in range(first, STEPS)]
    seen = []
    for chunk in prefetched(stream, plan, layout):
        (host,) = chunk.host
        np.testing.assert_array_equal(chunk.device["x"][0], host["x"])
        seen.append((host["x"], host["index"], host["position"], stream.read, stream.replaced))
    stream.close()
    return seen


@pytest.fixture(scope="module")
def reference():
    """Read one after the other by hand, without any of the core's readers."""
    source, order = Augmenting(broken=(4, 9)), open_stream().order
    batches = []
    for step in range(STEPS):
        rows = []
        for position in range(step * SIZE, (step + 1) * SIZE):
            index, attempt = order.index(position), 0
            while index in source.broken:
                attempt += 1
                index = order.substitute(position, attempt)
            rows.append((source.load(index, position)["x"], index, attempt))
        batches.append(rows)
    return batches


@pytest.mark.parametrize("settings", [{"workers": 1}, {"workers": 7}, {"processes": 2}])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_any_readers_give_each_position_the_same_example(reference, settings, prefetch):
    seen = contents(open_stream(**settings, prefetch=prefetch))
    replaced = 0
    for step, (x, index, position, read_count, replaced_count) in enumerate(seen):
        np.testing.assert_array_equal(x, np.stack([row[0] for row in reference[step]]))
        assert index.tolist() == [row[1] for row in reference[step]]
        assert position.tolist() == list(range(step * SIZE, (step + 1) * SIZE))
        # However far ahead the readers are, the counts are those of the batches handed out.
        replaced += sum(row[2] for row in reference[step])
        assert (read_count, replaced_count) == ((step + 1) * SIZE, replaced)
    assert replaced >= 2


@pytest.mark.parametrize("hosts", [2, 4])
def test_the_hosts_of_a_resumed_run_read_their_rows_of_the_same_batches(reference, hosts):
    first = 3
    parts = [
        contents(open_stream(rows=np.arange(SIZE)[host::hosts]), first, PartOfAPod())
        for host in range(hosts)
    ]
    for step in range(first, STEPS):
        for host, part in enumerate(parts):
            wanted = [row[0] for row in reference[step][host::hosts]]
            np.testing.assert_array_equal(part[step - first][0], np.stack(wanted))


def test_examples_come_from_as_many_processes_as_were_asked_for():
    stream = open_stream(Augmenting(200), processes=2)
    processes = {int(p) for step in range(8) for p in stream.batch(step)["process"]}
    stream.close()
    assert len(processes) == 2 and os.getpid() not in processes
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_reader_process_that_dies_is_one_sentence():
    stream = open_stream(Augmenting(fatal=7), processes=1)
    sentence = r"ended by SIGKILL, .* while it read example 7; .* config\.loader\.processes lower"
    with pytest.raises(DataFault, match=sentence):
        for step in range(3):
            stream.batch(step)
    stream.close()


def test_a_mistake_of_the_source_comes_back_from_the_process_with_its_traceback():
    stream = open_stream(Augmenting(failing=7), processes=1)
    with pytest.raises(ZeroDivisionError, match="a mistake in the source") as caught:
        for step in range(3):
            stream.batch(step)
    stream.close()
    assert "readers.py" in caught.value.__notes__[0]


def test_a_source_that_cannot_be_sent_is_refused():
    class Local(ToySource):
        pass

    with pytest.raises(ConfigError, match=r"loader\.processes needs a source that can be pickled"):
        open_stream(Local(8), processes=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_request_to_all_processes_leaves_the_readers_at_work(number):
    stream = open_stream(Augmenting(), processes=1)
    (reader,) = {int(p) for p in stream.batch(0)["process"]}
    os.kill(reader, number)
    assert {int(p) for p in stream.batch(1)["process"]} == {reader}
    stream.close()


class Gate(ToySource):
    """After so many examples, they wait for the test: `begun` counts, `open` lets them go on."""

    def __init__(self, length, closed_from):
        super().__init__(length)
        for name, value in {
            "closed_from": closed_from,
            "count": itertools.count(),
            "begun": threading.Semaphore(0),
            "open": threading.Event(),
        }.items():
            object.__setattr__(self, name, value)

    def __getitem__(self, index):
        self.begun.release()
        if next(self.count) >= self.closed_from:
            self.open.wait(20)
        return super().__getitem__(index)


def read_groups(source, groups, workers):
    readers = Readers(source, workers)
    return readers, ReadAhead(readers, groups, source.__getitem__)


def test_the_next_group_is_read_while_one_is_used_and_no_more_than_that():
    source = Gate(100, closed_from=4)
    readers, reads = read_groups(source, [list(range(i, i + 4)) for i in range(0, 100, 4)], 4)
    taken = iter(reads)
    next(taken)
    # Group 0 is in hand; all readers have begun group 1, and wait at the gate.
    for _ in range(4 + 4):
        assert source.begun.acquire(timeout=10)
    source.open.set()
    next(taken)
    taken.close()
    readers.close()
    begun = 8
    while source.begun.acquire(blocking=False):
        begun += 1
    assert begun <= 3 * 4, "one group was in hand, and only one more was asked for"


def test_small_groups_still_keep_every_reader_busy():
    source = Gate(100, closed_from=1)
    readers, reads = read_groups(source, [[i] for i in range(100)], 6)
    taken = iter(reads)
    next(taken)
    for _ in range(1 + 6):
        assert source.begun.acquire(timeout=10)
    source.open.set()
    taken.close()
    readers.close()


def test_an_error_comes_out_where_its_example_would_have():
    source = Augmenting(100, broken=(9,))
    readers, reads = read_groups(source, [list(range(i, i + 4)) for i in range(0, 100, 4)], 3)
    taken = iter(reads)
    assert [len(next(taken)), len(next(taken))] == [4, 4]
    with pytest.raises(InputError, match=r"9\.jpg is truncated"):
        next(taken)
    readers.close()


@pytest.mark.parametrize("processes", [0, 1])
def test_closing_in_the_middle_is_prompt_and_leaves_nothing_behind(processes):
    threads = reader_threads()
    stream = open_stream(Slow(400), np.arange(6), workers=2, processes=2 * processes)
    chunks = prefetched(stream, [(step, 1) for step in range(9)], PartOfAPod())
    next(chunks)
    start = time.monotonic()
    chunks.close()
    stream.close()
    # Those that have begun, 0.5 s; all that were asked for would take 3 s.
    assert time.monotonic() - start < 1.5
    # Nobody waits for a thread that has begun an example; it ends with it.
    assert happens(lambda: reader_threads() <= threads)


def test_closing_waits_for_no_example_where_the_run_is_to_stop(monkeypatch):
    monkeypatch.setattr(distributed, "in_a_hurry", lambda: True)
    source = Gate(40, closed_from=SIZE)
    stream = ExampleStream(source, 3, SIZE, np.arange(SIZE), LoaderConfig(4))
    chunks = prefetched(stream, [(step, 1) for step in range(9)], LAYOUT)
    next(chunks)
    closing = threading.Thread(target=lambda: (chunks.close(), stream.close()))
    closing.start()
    closing.join(10)
    ended = not closing.is_alive()
    source.open.set()
    assert ended


def test_what_a_check_at_the_start_reads_is_counted_once():
    stream = open_stream(workers=2)
    stream.batch(0)
    assert contents(stream)[-1][3] == STEPS * SIZE

"""Runs conversions in processes, in order, and outlives a decoder that crashes or hangs.

A damaged file can bring down a native codec and with it the process. The pool then breaks; every
input that was under way is tried again alone in a process of its own, and the one that ends that
process too is reported as `decoder_crashed`.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from jepa3d.data.convert import Outcome, Task, convert, convert_in_worker, skipped
from jepa3d.data.volume import SkipReason
from training import stop


def run_all(tasks: list[Task], workers: int) -> Iterator[Outcome]:
    """Outcomes in the order of `tasks`; at most a few are in memory at once.

    Args:
      tasks: what to convert.
      workers: processes; 0 converts here, without protection against crashes.
    """
    if workers <= 0:
        yield from map(convert, tasks)
        return
    waiting = deque(tasks)
    running: deque[tuple[Task, Future[Outcome]]] = deque()
    pool = _new_pool(workers)
    try:
        while waiting or running:
            try:
                # Two for each worker, one under way and one ready: more would pile up in memory.
                while waiting and len(running) < 2 * workers:
                    # Off `waiting` only afterwards: a broken pool raises here, and the task stays.
                    running.append((waiting[0], _submit(pool, waiting[0])))
                    waiting.popleft()
                outcome = running[0][1].result()
                running.popleft()
                yield outcome
            except BrokenProcessPool:
                pool.shutdown(cancel_futures=True)
                yield from _one_at_a_time(running)
                running.clear()
                pool = _new_pool(workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _new_pool(workers: int) -> ProcessPoolExecutor:
    # spawn: a forked child of a process with threads (jax has many) may deadlock.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _submit(pool: ProcessPoolExecutor, task: Task) -> Future[Outcome]:
    with stop.children_without_ctrl_c():  # a process is started when the first task needs it
        return pool.submit(convert_in_worker, task)


def _one_at_a_time(running: Iterable[tuple[Task, Future[Outcome]]]) -> Iterator[Outcome]:
    """Outcomes of what a broken pool left behind; who breaks a pool of one is found out."""
    pool = _new_pool(1)
    try:
        for task, future in running:
            if future.done() and not future.cancelled() and future.exception() is None:
                # Done before the pool broke.
                yield future.result()
                continue
            try:
                yield _submit(pool, task).result()
            except BrokenProcessPool:
                pool.shutdown(cancel_futures=True)
                pool = _new_pool(1)
                yield skipped(
                    task,
                    SkipReason.DECODER_CRASHED,
                    "the process that decoded it crashed, ran out of memory or out of time",
                )
    finally:
        pool.shutdown(cancel_futures=True)

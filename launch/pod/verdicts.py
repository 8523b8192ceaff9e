"""Why a run ended, from the exit codes and the last lines of all workers.

The worker that failed first is seldom worker 0, and the others only say that they lost it: the
words that name a cause are looked for everywhere.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

from launch.pod.reports import Worker


class Cause(enum.Enum):
    """What to do about it."""

    RUNNING = "it runs"
    DONE = "it is done"
    PREEMPTED = "it was told to stop and saved; start it again"
    REFUSED = "it was refused, or stopped by a guard or by its data; starting it again is of no use"
    BAD_NODE = "a worker is out of order; have the slice made again"
    CRASH = "it crashed; start it again"
    ABSENT = "it was never started here"


@dataclass(frozen=True)
class Verdict:
    """A cause, the worker that shows it (None: all alike), and its words."""

    cause: Cause
    worker: int | None = None
    words: str = ""


# Of libtpu and the kernel, where a host or its chips do not work.
BAD_NODE = re.compile(
    r"Device or resource busy|No such device|TPU initialization failed|"
    r"Failed to (?:open|initialize) .*?(?:/dev/accel|/dev/vfio|TPU)|uncorrectable|"
    r"The TPU is already in use|Input/output error: '?/dev",
    re.IGNORECASE,
)
# What the others say of it: names no cause.
LOST = re.compile(r"heartbeat|Socket closed|coordination service|Connection closed by peer")
REFUSALS = {2: "refused", 3: "stopped by a guard", 4: "stopped by its data"}
# What `training.loop` and `training.stop` say where a signal ended a run in order.
PREEMPTED = re.compile(r"asked to stop")


def judge(workers: Sequence[Worker], hosts: int) -> Verdict:
    """The verdict over all workers that answered.

    Args:
      hosts: how many there should be.
    """
    if any(worker.state == "running" for worker in workers):
        return Verdict(Cause.RUNNING)
    if not workers or all(worker.state == "none" for worker in workers):
        return Verdict(Cause.ABSENT)
    for worker in workers:
        if worker.code in REFUSALS:
            return Verdict(Cause.REFUSED, worker.number, _said(worker, r"podvision \w+: "))
    for worker in workers:
        if worker.code != 0 and (line := _line(worker, BAD_NODE)):
            return Verdict(Cause.BAD_NODE, worker.number, line)
    failed = [worker for worker in workers if worker.code != 0]
    if failed:
        # The first to fail is the one that does not blame the others.
        failed.sort(key=lambda worker: bool(_line(worker, LOST)))
        return Verdict(Cause.CRASH, failed[0].number, _said(failed[0], r"Error|error"))
    if len(workers) < hosts:
        return Verdict(Cause.CRASH, None, f"only {len(workers)} of {hosts} workers answer")
    stopped = next((worker for worker in workers if _line(worker, PREEMPTED)), None)
    if stopped is not None:
        return Verdict(Cause.PREEMPTED, stopped.number, _line(stopped, PREEMPTED))
    return Verdict(Cause.DONE)


def _line(worker: Worker, pattern: re.Pattern) -> str:
    return next((line.strip() for line in reversed(worker.tail) if pattern.search(line)), "")


def _said(worker: Worker, wanted: str) -> str:
    """The last line that matches, or the last line, or the code."""
    found = _line(worker, re.compile(wanted))
    last = worker.tail[-1].strip() if worker.tail else ""
    return found or last or f"exit code {worker.code}"

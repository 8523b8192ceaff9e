"""Keeps a run alive on a slice that may be taken away: judged by checkpoints, not by uptime.

A preempted slice is deleted, made again, set up, given the same tree and started. A worker that is
out of order has the slice made again. A crash is started again, after a pause that doubles, until
there were more than `restarts` without a newer checkpoint. A config that is refused, a guard and a
data fault end it: starting again would cost and change nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from launch.pod.slices import ENDED
from launch.pod.verbs import Pod, Tree
from launch.pod.verdicts import Cause, Verdict, judge
from training.errors import InputError

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0


@dataclass(frozen=True)
class Policy:
    """How long is waited, and how often is tried.

    Attributes:
      poll: seconds between two looks.
      restarts: crashes in a row without a newer checkpoint that end it.
      ready_seconds: for a slice to come.
    """

    poll: float = 60.0
    restarts: int = 3
    ready_seconds: float = 86_400.0


def babysit(
    pod: Pod,
    tree: Tree,
    command: list[str],
    workdir: str,
    policy: Policy,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Returns when the run is done.

    Args:
      command: of podvision, such as `train --config ...`.
      workdir: of the run, where its checkpoints are looked for.

    Raises:
      InputError: it was refused or stopped by a guard or its data, crashed too often without
        progress, or gcloud fails.
    """
    crashes, best, seen = 0, -1, False
    while True:
        state = pod.slice.state(pod.shell)
        if state == "ABSENT" or state in ENDED:
            pod.say(f"{pod.slice.name} is {state}: it is made again")
            _remake(pod, tree, command, policy)
            seen = True
            pause(policy.poll)
            continue
        if state != "READY":
            pause(policy.poll)
            continue
        verdict = judge(pod.workers(), pod.slice.hosts)
        if verdict.cause is Cause.DONE and seen:
            pod.say("the run is done")
            return
        if verdict.cause is Cause.RUNNING:
            seen = True
            pause(policy.poll)
            continue
        if verdict.cause is Cause.DONE:
            # Ended before anybody looked: a start says whether anything is left to be done.
            seen = True
            pod.start(command)
            pause(policy.poll)
            continue
        if verdict.cause is Cause.REFUSED:
            raise InputError(f"worker {verdict.worker} ended for good: {verdict.words}")
        if verdict.cause is Cause.CRASH:
            newest = pod.newest_checkpoint(workdir)
            crashes = 1 if newest > best else crashes + 1
            best = max(best, newest)
            _check(crashes, best, verdict, policy)
            wait = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (crashes - 1))
            pod.say(f"{_told(verdict)}; started again in {wait:.0f} s")
            pause(wait)
        elif verdict.cause is Cause.BAD_NODE:
            crashes += 1
            _check(crashes, best, verdict, policy)
            pod.say(f"{_told(verdict)}; the slice is made again")
            pod.slice.delete(pod.shell)
            _remake(pod, tree, command, policy)
            seen = True
            pause(policy.poll)
            continue
        else:
            pod.say(_told(verdict))
        seen = True
        _started(pod, tree, command)
        pause(policy.poll)


def _remake(pod: Pod, tree: Tree, command: list[str], policy: Policy) -> None:
    # A preempted slice stands until it is deleted, and its name is taken until then.
    pod.slice.delete(pod.shell)
    pod.create()
    pod.wait_until_ready(policy.ready_seconds, min(20.0, policy.poll))
    pod.setup()
    _started(pod, tree, command)


def _started(pod: Pod, tree: Tree, command: list[str]) -> None:
    pod.push(tree)
    pod.start(command)


def _check(crashes: int, best: int, verdict: Verdict, policy: Policy) -> None:
    if crashes > policy.restarts:
        since = f"since the checkpoint of step {best}" if best >= 0 else "without any checkpoint"
        raise InputError(
            f"the run failed {crashes} times {since}, the last time {_told(verdict)}; it is not "
            "started again: look at podvision pod logs --all"
        )


def _told(verdict: Verdict) -> str:
    who = "" if verdict.worker is None else f"worker {verdict.worker}: "
    words = f" ({verdict.words})" if verdict.words else ""
    return f"{who}{verdict.cause.value.partition(';')[0]}{words}"

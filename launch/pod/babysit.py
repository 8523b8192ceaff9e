"""Keeps a run alive on a slice that may be taken away: judged by checkpoints, not by uptime.

A preempted slice is deleted, made again, set up, given the same tree and started, and so is one
with a worker that is out of order or does not answer. A crash is started again, after a pause that
doubles, until there were more than `restarts` failures without a newer checkpoint. A config that is
refused, a guard and a data fault end it: starting again would cost and change nothing.

While there is no slice nothing costs: a zone without capacity and a gcloud that fails are tried
again for as long as a slice is waited for. What no second try can cure (rights, spelling) ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from launch.pod.gcloud import CommandFailed
from launch.pod.reports import Worker, WorkerFault
from launch.pod.slices import ENDED
from launch.pod.verbs import Pod, SliceEnded, Tree
from launch.pod.verdicts import Cause, Verdict, judge
from training.errors import InputError

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
# A worker that ssh does not reach once may be busy; so often in a row, it is out of order.
SILENT_LOOKS = 3
# Looks at which some workers run and others do not, before those are stopped; seconds to save in.
APART_LOOKS, STOP_SECONDS = 10, 60


@dataclass(frozen=True)
class Policy:
    """How long is waited, and how often is tried.

    Attributes:
      poll: seconds between two looks.
      restarts: failures in a row without a newer checkpoint that end it.
      ready_seconds: for a slice to come, and for a gcloud that fails to work again.
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
      InputError: it was refused or stopped by a guard or its data, failed too often without
        progress, or gcloud fails for good.
    """
    Babysitter(pod, tree, command, workdir, policy, pause).watch()


@dataclass
class Babysitter:
    """The state of the loop.

    Attributes:
      failures: in a row without a newer checkpoint.
      newest: step of the newest checkpoint that was seen after a failure; -1 without one.
      silent: looks in a row at which a worker did not answer.
      apart: looks in a row at which some workers ran and others did not.
      seen: a start of this loop, or a run in progress, was seen.
    """

    pod: Pod
    tree: Tree
    command: list[str]
    workdir: str
    policy: Policy
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    failures: int = 0
    newest: int = -1
    silent: int = 0
    apart: int = 0
    seen: bool = False

    # Since when no round has succeeded, for reasons that lie outside of the slice.
    _waiting_since: float | None = field(default=None, init=False)
    _waits: int = field(default=0, init=False)

    def watch(self) -> None:
        """Looks and acts until the run is done."""
        done = False
        while not done:
            try:
                done = self._round()
                self._waiting_since, self._waits = None, 0
            except SliceEnded as error:
                self._wait(f"{error}".partition(";")[0])
            except CommandFailed as error:
                if error.lasting:
                    raise
                self._wait(f"{error}")
            if not done:
                self.pause(self.policy.poll)
        self.pod.say("the run is done; the slice costs until podvision pod delete")

    def _round(self) -> bool:
        """One look and its answer; whether the run is done."""
        try:
            return self._look()
        except WorkerFault as error:
            self._missed(f"{error}")
            return False

    def _look(self) -> bool:
        state = self.pod.slice.state(self.pod.shell)
        if state == "ABSENT" or state in ENDED:
            self.pod.say(f"{self.pod.slice.name} is {state}: it is made again")
            self._remake()
            return False
        if state != "READY":
            return False
        found = self.pod.workers()
        verdict = judge(found, self.pod.slice.hosts)
        if verdict.cause is Cause.RUNNING:
            self.seen, self.silent = True, 0
            self._left_behind(found)
            return False
        if len(found) < self.pod.slice.hosts and verdict.cause is not Cause.REFUSED:
            self._missed(_who_is_missing(found, self.pod.slice.hosts))
            return False
        self.silent = self.apart = 0
        if verdict.cause is Cause.DONE and self.seen:
            return True
        if verdict.cause is Cause.REFUSED:
            raise InputError(
                f"worker {verdict.worker} ended for good: {verdict.words}; {self._costs()}"
            )
        if verdict.cause is Cause.BAD_NODE:
            self._failed(_told(verdict))
            self.pod.say(f"{_told(verdict)}; the slice is made again")
            self._remake()
            return False
        if verdict.cause is Cause.CRASH:
            self._failed(_told(verdict))
            wait = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self.failures - 1))
            self.pod.say(f"{_told(verdict)}; started again in {wait:.0f} s")
            self.pause(wait)
        elif verdict.cause is not Cause.DONE:
            self.pod.say(_told(verdict))
        # DONE before anybody looked, too: a start says whether anything is left to be done.
        self._start()
        return False

    def _remake(self) -> None:
        # A preempted slice stands until it is deleted, and its name is taken until then.
        self.pod.slice.delete(self.pod.shell)
        self.pod.create()
        self.pod.wait_until_ready(self.policy.ready_seconds, min(20.0, self.policy.poll))
        self.silent = 0
        self._start()

    def _start(self) -> None:
        # Setup included: the slice may have come while nobody was looking. It is made once.
        self.pod.setup()
        self.pod.push(self.tree)
        self.pod.start(self.command)
        self.seen = True

    def _left_behind(self, found: list[Worker]) -> None:
        """Ends workers that go on without one that failed: they wait for it, and cost.

        Those that notice end by themselves; what still runs some looks later never will.
        """
        ended = [worker for worker in found if worker.state != "running"]
        self.apart = self.apart + 1 if ended else 0
        if self.apart < APART_LOOKS:
            return
        self.apart = 0
        self.pod.say(f"worker {ended[0].number} does not run and others do; they are stopped")
        try:
            self.pod.stop(STOP_SECONDS)
        except WorkerFault:
            raise
        except InputError as error:  # some had to be killed, as was to be expected
            self.pod.say(f"{error}")

    def _missed(self, words: str) -> None:
        """A worker did not answer: again at the next look, at last on another slice.

        A slice that was taken away meanwhile is none of its faults.
        """
        state = self.pod.slice.state(self.pod.shell)
        if state == "ABSENT" or state in ENDED:
            return
        self.silent += 1
        self.pod.say(words)
        if self.silent < SILENT_LOOKS:
            return
        self._failed(words)
        self.pod.say("the slice is made again")
        self.silent = 0
        # Gone is enough: the next look makes it, and deals with what may go wrong then.
        self.pod.slice.delete(self.pod.shell)

    def _failed(self, words: str) -> None:
        """Counts a failure.

        Raises:
          InputError: there were too many since the newest checkpoint.
        """
        newest = self.pod.newest_checkpoint(self.workdir)
        self.failures = 1 if newest > self.newest else self.failures + 1
        self.newest = max(self.newest, newest)
        if self.failures > self.policy.restarts:
            since = "without any checkpoint"
            if self.newest >= 0:
                since = f"since the checkpoint of step {self.newest}"
            raise InputError(
                f"the run failed {self.failures} times {since}, the last time {words}; it is not "
                f"started again: look at podvision pod logs --all; {self._costs()}"
            )

    def _wait(self, words: str) -> None:
        """No slice, or no word of it: a longer and longer pause.

        Raises:
          InputError: it has been so for as long as a slice is waited for.
        """
        now = self.clock()
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        waited = now - self._waiting_since
        if waited > self.policy.ready_seconds:
            raise InputError(f"{words}; it has been so for {waited:.0f} s (--wait)")
        wait = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._waits, 10))
        self._waits += 1
        self.pod.say(f"{words}; tried again in {wait:.0f} s")
        self.pause(wait)

    def _costs(self) -> str:
        return f"{self.pod.slice.name} still stands and costs until podvision pod delete"


def _who_is_missing(found: list[Worker], hosts: int) -> str:
    numbers = {worker.number for worker in found}
    missing = [str(number) for number in range(hosts) if number not in numbers]
    return f"worker {', '.join(missing)} of {hosts} does not answer"


def _told(verdict: Verdict) -> str:
    who = "" if verdict.worker is None else f"worker {verdict.worker}: "
    words = f" ({verdict.words})" if verdict.words else ""
    return f"{who}{verdict.cause.value.partition(';')[0]}{words}"

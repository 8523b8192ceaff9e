"""Guards that watch the metrics of every update, on the host.

Each is a small state machine: `check(step, metrics)` returns a verdict when there is something to
record. One that is no warning stops the run; all of them go to the flight recorder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from training.capabilities import Guards
from training.config import GuardConfig
from training.loss import LossTerm
from training.verdict import Verdict, Watch

Metrics = Mapping[str, float]


def stop(guard: str, sentence: str) -> Verdict:
    """A finding that ends the run."""
    return Verdict(guard, False, sentence)


def note(guard: str, sentence: str, stops: bool = False) -> Verdict:
    """A finding that is recorded, and ends the run only where it `stops`."""
    return Verdict(guard, False, sentence, warning=not stops)


class Suppressed:
    """Suppressed updates are counted; too many in a row stop the run."""

    name = "nonfinite"
    promise = "every loss and gradient was finite"

    def __init__(self, limit: int):
        self.limit, self.run = limit, 0

    def check(self, step: int, metrics: Metrics) -> Verdict | None:
        reasons = [
            name.removeprefix("suppressed/")
            for name, value in metrics.items()
            if name.startswith("suppressed/") and value > 0
        ]
        # What is replayed is made again, and so is not lost.
        if metrics.get("replay") or not reasons:
            self.run = 0
            return None
        self.run += 1
        if self.run >= self.limit:
            sentence = (
                f"{self.run} updates in a row were suppressed ({', '.join(reasons)}), the last at "
                f"step {step}; the parameters are those before them"
            )
            return stop("consecutive-skips", sentence)
        sentence = f"the update of step {step} was suppressed ({', '.join(reasons)})"
        return note(self.name, sentence)


class ZeroGradient:
    """A parameter group whose gradient is exactly zero learns nothing."""

    name = "zero-gradient"
    promise = "every parameter group had a gradient"

    def __init__(self, limit: int, quiet: Mapping[str, int]):
        self.limit, self.quiet = limit, quiet
        self.runs: dict[str, int] = {}

    def check(self, step: int, metrics: Metrics) -> Verdict | None:
        for name, value in metrics.items():
            if not name.startswith("grad_norm/"):
                continue
            group = name.removeprefix("grad_norm/")
            applied = step - int(metrics.get("skipped", 0))
            zero = value == 0.0 and applied > self.quiet.get(group, 0)
            self.runs[group] = self.runs.get(group, 0) + 1 if zero else 0
            if self.runs[group] >= self.limit:
                sentence = (
                    f"the gradient of the parameter group {group!r} was exactly zero for "
                    f"{self.runs[group]} updates up to step {step}: the loss does not depend on it"
                )
                return stop(self.name, sentence)
        return None


class GradientNorm:
    """The norm of the whole gradient, before clipping, is neither zero nor absurd.

    Clipping hides an exploded gradient: its direction is noise, and the update is as long as ever.
    """

    name = "grad-norm"
    promise = "the gradient norm, measured before clipping, was neither zero nor absurd"

    def __init__(self, largest_ratio: float, patience: int):
        self.largest_ratio, self.patience = largest_ratio, patience
        self.run = 0

    def check(self, step: int, metrics: Metrics) -> Verdict | None:
        norm, size = metrics["grad_norm"], max(metrics["param_norm"], 1e-12)
        # A NaN compares as neither: it is the affair of `Suppressed`.
        absurd = norm > self.largest_ratio * size
        self.run = self.run + 1 if absurd or norm == 0.0 else 0
        if self.run == 0:
            return None
        fatal = self.run >= self.patience
        found = f"{norm:.3g}, that of the parameters {size:.3g}" if absurd else "exactly zero"
        sentence = f"the gradient norm before clipping was {found} at step {step}"
        if fatal:
            sentence = f"{sentence}, for {self.run} updates in a row: the updates mean nothing"
        return note(self.name, sentence, fatal)


class ConstantTerm:
    """A required term that never changes is not computed from the model or the data."""

    name = "constant-term"
    promise = "every required loss term changed from update to update"

    def __init__(self, limit: int, terms: Mapping[str, LossTerm]):
        self.limit = limit
        self.terms = {name: term for name, term in terms.items() if term.required}
        self.last: dict[str, tuple[float, int]] = {}

    def check(self, step: int, metrics: Metrics) -> Verdict | None:
        applied = step - 1 - int(metrics.get("skipped", 0))
        for name, term in self.terms.items():
            inside = term.window is None or term.window[0] <= applied < term.window[1]
            if not inside or f"loss/{name}" not in metrics:
                # Outside of its window a term may stand still; the count begins anew inside.
                self.last.pop(name, None)
                continue
            value = metrics[f"loss/{name}"]
            before, count = self.last.get(name, (value, 0))
            count = count + 1 if value == before else 1
            self.last[name] = (value, count)
            if count >= self.limit:
                sentence = (
                    f"the required loss term {name!r} was exactly {value:g} for {count} updates up "
                    f"to step {step}: it is detached or not computed"
                )
                return stop(self.name, sentence)
        return None


class LearningRateRose:
    """After the warm-up a learning rate may only fall."""

    name = "learning-rate-rose"
    promise = "no learning rate rose after the warm-up"

    def __init__(self, warmup: int):
        self.warmup = warmup
        self.lowest: dict[str, float] = {}

    def check(self, step: int, metrics: Metrics) -> Verdict | None:
        applied = step - 1 - int(metrics.get("skipped", 0))
        for name, rate in metrics.items():
            if name.split("/")[0] != "learning_rate" or applied < self.warmup:
                continue
            # Against the lowest so far: the steps of a slow climb are too small to be seen.
            before = self.lowest.setdefault(name, rate)
            self.lowest[name] = min(before, rate)
            if rate > before * (1 + 1e-5):
                sentence = (
                    f"{name} rose from {before:.6g} to {rate:.6g} at step {step}, "
                    f"after the warm-up of {self.warmup} updates"
                )
                return stop(self.name, sentence)
        return None


class LossSpike:
    """The loss against the median and the median absolute deviation of recent updates.

    A term that begins, or a rewrite of the state that changes the loss, makes another loss: the
    scale is then measured anew.
    """

    name = "loss-spike"
    promise = "the loss stayed near its recent median"
    # Updates: how many the scale is taken from, at most and at least.
    WINDOW, LEAST = 200, 30

    def __init__(self, factor: float, patience: int):
        self.factor, self.patience = factor, patience
        self.recent: deque[float] = deque(maxlen=self.WINDOW)
        self.begun: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """Forgets the scale of the loss."""
        self.recent.clear()
        self.run, self.limit = 0, np.inf

    def check(self, step: int, metrics: Metrics) -> Verdict | None:
        loss = metrics["loss"]
        if not np.isfinite(loss):
            return None
        active = {name for name, x in metrics.items() if name.startswith("share/") and x > 0}
        if active - self.begun:
            self.begun |= active
            self.restart()
        # Every tenth step is often enough for a scale over 200 updates.
        if len(self.recent) >= self.LEAST and step % 10 == 0:
            median = float(np.median(self.recent))
            # 1.4826: from a median to a standard deviation, for normal noise. At least 2 % of the
            # median, or a loss that hardly moves would spike all the time.
            spread = 1.4826 * float(np.median(np.abs(np.array(self.recent) - median)))
            self.limit = median + self.factor * max(spread, 0.02 * abs(median))
        # A spike is kept out of the scale that the next ones are measured by.
        if loss <= self.limit:
            self.recent.append(loss)
            self.run = 0
            return None
        self.run += 1
        fatal = self.run >= self.patience
        sentence = f"the loss was {loss:.6g} at step {step}, above {self.limit:.6g}"
        if fatal:
            sentence = (
                f"the loss has been above {self.limit:.6g} for {self.run} updates; {sentence}"
            )
        return note(self.name, sentence, fatal)


class ShareCap:
    """A term may not take more of the loss than its declared cap."""

    name = "share-cap"
    promise = "no loss term took more than its cap"

    def __init__(self, terms: Mapping[str, LossTerm], patience: int):
        self.caps = {n: t.share_cap for n, t in terms.items() if t.share_cap is not None}
        self.patience = patience
        self.runs: dict[str, int] = {}

    def check(self, step: int, metrics: Metrics) -> Verdict | None:
        for name, cap in self.caps.items():
            share = metrics.get(f"share/{name}", 0.0)
            self.runs[name] = self.runs.get(name, 0) + 1 if share > cap else 0
            if self.runs[name] >= self.patience:
                sentence = (
                    f"the loss term {name!r} took {share:.0%} of the loss at step {step}, above "
                    f"its cap of {cap:.0%}; lower its weight"
                )
                return stop(self.name, sentence)
        return None


class AverageMoved:
    """The EMA must change in the first updates: a frozen target teaches nothing."""

    name = "ema-moved"
    promise = "the averaged parameters moved with every update"

    def __init__(self, limit: int = 10):
        self.limit, self.still = limit, 0

    def check(self, step: int, metrics: Metrics) -> Verdict | None:
        moved = metrics.get("ema_update_norm")
        decay = metrics.get("ema_decay", 0.0)
        if moved is None or decay >= 1.0:
            return None
        # A suppressed update leaves the average as it was, and that is right.
        skipped = any(v > 0 for n, v in metrics.items() if n.startswith("suppressed/"))
        self.still = self.still + 1 if moved == 0.0 and not skipped else 0
        if self.still >= self.limit:
            sentence = (
                f"the averaged parameters did not move in {self.still} updates up to step {step} "
                f"at decay {decay:.6f}: the target encoder is frozen"
            )
            return stop(self.name, sentence)
        return None


def watches(
    config: GuardConfig, terms: Mapping[str, LossTerm], guards: Guards, warmup: int
) -> list[Watch]:
    """Every guard over the updates that is not switched off.

    Args:
      terms: the declared terms of the loss.
      guards: the system's own.
      warmup: updates until every learning rate may only fall.
    """
    everything: list[Watch] = [
        *guards.watches(config),  # first: what a system says of itself is the most telling
        Suppressed(config.max_consecutive_skips),
        GradientNorm(config.gradient_ratio, config.spike_patience),
        ZeroGradient(config.zero_gradient_updates, guards.quiet_groups),
        ConstantTerm(config.constant_term_updates, terms),
        LearningRateRose(warmup),
        LossSpike(config.spike_factor, config.spike_patience),
        ShareCap(terms, config.spike_patience),
        AverageMoved(),
    ]
    return [watch for watch in everything if watch.name not in config.off]


def restart_scales(active: Sequence[Watch]) -> None:
    """After a rewrite of the state: guards that compare with the past begin anew."""
    for watch in active:
        if isinstance(watch, LossSpike):
            watch.restart()

"""Signs that a reconstruction is none: a node that is nowhere to be seen, frames not learned."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from hand_object.loss_config import BalanceConfig
from training.verdict import Verdict, Watch

NAMES = ("lost-node", "idle-phase", "leaps")
LOST = 0.05  # mask IoU of a node below which it counts as lost
PATIENCE = 50  # updates in which a term has a value before it must have a gradient
LEAP_SPAN = 500  # updates over which leaps are counted
OVERFIT_PSNR, OVERFIT_IOU = 22.0, 0.8  # dB and share, on the fitted frames


def of_evaluations(history: Sequence[Mapping[str, float]]) -> list[Verdict]:
    """Whether every node is still to be seen in the held-out frames, after the first evaluation."""
    if len(history) < 2:
        return []
    found = {
        name.removeprefix("mask_iou_"): value
        for name, value in history[-1].items()
        if name.startswith("mask_iou_")
    }
    lost = sorted(name for name, value in found.items() if value < LOST)
    if not lost and history[-1].get("surfaces") == 0:
        sentence = (
            "the field of the object or a hand has no surface: it is fog; where it stays so, "
            "lower the learning rates of planes and networks, or raise config.losses.mask"
        )
        return [Verdict("lost-node", False, sentence, warning=True)]
    if not lost:
        least = min(found.values(), default=float("nan"))
        return [Verdict("lost-node", True, f"every node is seen, mask IoU {least:.2f} or more")]
    name = lost[0]
    return [
        Verdict(
            "lost-node",
            False,
            f"the {name} is not to be seen in the held-out frames (mask IoU {found[name]:.3f}): "
            "its masks, poses or camera do not belong together, or the learning rate is too high; "
            "look at the pictures of podvision prepare hand_object",
        )
    ]


def overfit(before: Mapping[str, float], after: Mapping[str, float]) -> Verdict:
    """Whether the fitted frames are reproduced, in color and in outline."""
    needed = max(OVERFIT_PSNR, before["psnr"] + 2.0)
    iou = after.get("mask_iou", 1.0)
    sentence = (
        f"PSNR on the fitted frames went from {before['psnr']:.1f} to {after['psnr']:.1f} dB "
        f"(needed: {needed:.1f}), mask IoU is {iou:.2f} (needed: {OVERFIT_IOU})"
    )
    return Verdict("overfit", after["psnr"] >= needed and iou >= OVERFIT_IOU, sentence)


class IdlePhase:
    """A phase must act: its term has a gradient when its window is open, and is not zero in it."""

    name = "idle-phase"
    promise = "every phase acted in its window"

    def __init__(self, windows: Mapping[str, tuple[int, int]]):
        """Args: windows: [start, stop) in applied updates, by term."""
        self.windows = windows
        self.valued: dict[str, int] = {}

    def check(self, step: int, metrics: Mapping[str, float]) -> Verdict | None:
        applied = step - int(metrics.get("skipped", 0))
        for name, (start, stop) in self.windows.items():
            if not start < applied <= stop:
                continue
            if metrics[f"loss/{name}"] != 0:
                self.valued[name] = self.valued.get(name, 0) + 1
            if self.valued.get(name, 0) >= PATIENCE and not metrics[f"measured/{name}"]:
                sentence = (
                    f"the term {name} had a value in {self.valued[name]} updates up to step "
                    f"{step}, but no gradient on what it moves: it is detached"
                )
                return Verdict(self.name, False, sentence)
            if applied == stop and not metrics[f"phase/{name}"]:
                sentence = (
                    f"the phase {name} [{start}, {stop}) ended at step {step} without having acted "
                    "in one update: its term was zero throughout; look at the grasps of the data, "
                    f"or set config.phases.{name}.coefficient to 0"
                )
                return Verdict(self.name, False, sentence)
        return None


class Leaps:
    """Updates in which auxiliary terms were left out because the loss leapt."""

    name = "leaps"
    promise = "the loss did not leap while auxiliary terms acted"

    def __init__(self, most: int):
        self.most = most
        self.counts: deque[float] = deque(maxlen=LEAP_SPAN)

    def check(self, step: int, metrics: Mapping[str, float]) -> Verdict | None:
        self.counts.append(metrics["leaps"])
        found = int(self.counts[-1] - self.counts[0])
        if found <= self.most:
            return None
        sentence = (
            f"the loss leapt in {found} of the last {len(self.counts)} updates up to step {step}, "
            "and auxiliary terms were left out each time; lower their shares or coefficients, or "
            "lengthen config.balance.ramp"
        )
        return Verdict(self.name, False, sentence)


def of_updates(windows: Mapping[str, tuple[int, int]], config: BalanceConfig) -> list[Watch]:
    """Guards of a stage with phases; none without."""
    return [IdlePhase(windows), Leaps(config.most_spikes)] if windows else []

"""Signs that a reconstruction is none: a node that is nowhere to be seen, frames not learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.verdict import Verdict

NAMES = ("lost-node",)
LOST = 0.05  # mask IoU of a node below which it counts as lost
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

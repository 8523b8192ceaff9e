"""Proofs that a splat run learns from its photographs, and signs that it does not.

They exist because of a run whose loss never rendered an image: a sum of parameter regularizers
with gradients of 4e-10, no densification in 30,000 updates, and a "PSNR" computed from that loss.
Each function returns a `Verdict`; the first three run before the first update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from splats.render.layout import MIN_ALPHA
from training.verdict import Verdict

NAMES = (
    "pixel-dependence",
    "finite-differences",
    "held-out-split",
    "gradient-health",
    "identical-evaluations",
    "plausible-psnr",
    "held-out-falls",
    "idle-refinement",
)
Params = dict[str, Any]
MIN_PIXEL_EFFECT = 1e-3  # relative change of loss and gradients when the photograph changes
FINITE_DIFFERENCE_TOLERANCE = 0.1
CUTOFF_MARGIN = 1.5
PROBED = 5  # Gaussians per parameter
PHOTOGRAPH_PSNR_LIMIT = 45.0  # dB; published averages on photographs are 27 to 30
# dB that held-out PSNR must have fallen below its best, and training PSNR have risen since: an
# evaluation of a few views moves by a tenth from one hundred updates to the next.
HELD_OUT_FALL = 0.3
OVERFIT_PSNR = 24.0  # dB on the fitted views
NEEDED_GRADIENTS = ("means", "opacities", "scales", "sh0")
CHANGES = ("cloned", "split", "pruned", "relocated", "added")


def pixel_dependence(
    loss_of_images: Callable[[jax.Array], tuple[jax.Array, Params]],
    images: jax.Array,
    views: jax.Array,
) -> Verdict:
    """Loss and gradients must change when the photographs of the batch are blanked.

    Dark photographs become white and bright ones black, so that the mean error cannot stay alike.

    Args:
      loss_of_images: uint8 images [V, H, W, 3] -> (loss, gradients of the Gaussians).
      views: int32 [B], the views of the batch.
    """
    loss, gradients = loss_of_images(images)
    other_loss, other_gradients = loss_of_images(_blanked(images, views))
    change = abs(float(other_loss) - float(loss)) / max(abs(float(loss)), 1e-30)
    norm, difference = (float(size) for size in _sizes(gradients, other_gradients))
    gradient_change = difference / max(norm, 1e-30)
    passed = change > MIN_PIXEL_EFFECT and gradient_change > MIN_PIXEL_EFFECT
    sentence = (
        f"with blank photographs the loss changes by {change:.1%} and the gradient by "
        f"{gradient_change:.1%}"
    )
    if not passed:
        sentence = (
            f"{sentence}: the loss does not compare rendered pixels with the photographs, so "
            "nothing can be learned from them"
        )
    return Verdict("pixel-dependence", passed, sentence)


# Compiled as a whole, here and below: operation by operation, the guards would be a hundred
# programs that each take a twentieth of a second to compile, and are each looked up on disk.
@jax.jit
def _blanked(images: jax.Array, views: jax.Array) -> jax.Array:
    chosen = images[views]
    bright = jnp.mean(chosen.astype(jnp.float32), axis=(1, 2, 3), keepdims=True) > 127.5
    blank = jnp.where(bright, jnp.uint8(0), jnp.uint8(255)) + jnp.zeros_like(chosen)
    return images.at[views].set(blank)


@jax.jit
def _sizes(tree: Params, other: Params) -> tuple[jax.Array, jax.Array]:
    """Norms of a tree and of its difference from another."""
    return _norm(tree), _norm(jax.tree.map(jnp.subtract, tree, other))


def _norm(tree: Params) -> jax.Array:
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.float32(0.0)))


def gradient_health(gradients: Params, visible: float) -> Verdict:
    """The data terms must reach means, opacities, scales and base colors of visible Gaussians.

    Quaternions are exempt (no gradient while Gaussians are round), and so are the higher
    harmonics (none while the active degree is 0).

    Args:
      gradients: of the data terms alone, per parameter of the Gaussians.
      visible: mean number of Gaussians in a view of the batch.
    """
    norm_of, reached = _reach(gradients)
    norms = {name: float(norm) for name, norm in norm_of.items()}
    text = ", ".join(f"{name} {norm:.1e}" for name, norm in norms.items())
    if visible < 1:
        sentence = "no Gaussian is visible in the first batch; check cameras, points and scale"
        return Verdict("gradient-health", False, sentence)
    sick = [n for n in NEEDED_GRADIENTS if not (np.isfinite(norms[n]) and norms[n] > 0)]
    if sick:
        sentence = f"the image terms give no usable gradient to {', '.join(sick)} ({text})"
        return Verdict("gradient-health", False, sentence)
    sentence = f"gradient norms of the image terms: {text}; {visible:.0f} Gaussians visible"
    reached_count = float(reached)
    if reached_count < 0.5 * visible:
        sentence += f", but only {reached_count:.0f} of them have a gradient"
        return Verdict("gradient-health", False, sentence, warning=True)
    return Verdict("gradient-health", True, sentence)


@jax.jit
def _reach(gradients: Params) -> tuple[dict[str, jax.Array], jax.Array]:
    """The norm of each parameter's gradient, and the number of Gaussians whose means have one."""
    reached = jnp.sum(jnp.any(gradients["means"] != 0, axis=1))
    return {name: _norm({name: leaf}) for name, leaf in gradients.items()}, reached


def finite_differences(
    loss: Callable[[Params], jax.Array], gradients: Params, gaussians: Params
) -> Verdict:
    """Gradients of opacity, color and position agree with central differences of the whole loss.

    The Gaussians of largest gradient are moved along it, each parameter for itself; their median
    must agree within 10 % and half as much again as the cut-off usually adds, see `cutoff_effect`.

    Args:
      loss: Gaussians -> the whole loss.
      gradients: of that loss.
    """
    found = []
    for name in ("opacities", "sh0", "means"):
        probes = jax.device_get(_probes(gradients[name], gaussians))
        opacity = float(np.median(probes["opacity"]))
        allowed = FINITE_DIFFERENCE_TOLERANCE + CUTOFF_MARGIN * cutoff_effect(name, opacity)
        errors: list[float] = []
        # Once most of them are within what is allowed, the median is, whatever the others are.
        while len(errors) < PROBED and sum(e <= allowed for e in errors) <= PROBED // 2:
            probe = {key: values[len(errors)] for key, values in probes.items()}
            errors.append(_difference_error(loss, gaussians, name, probe, allowed))
        error = sorted(errors)[PROBED // 2]
        if not error <= allowed:
            listed = ", ".join(f"{error:.0%}" for error in errors)
            sentence = (
                f"the gradient of {name} is off by {listed} from finite differences of the loss at "
                f"the {PROBED} Gaussians where it is largest (their median may be off by "
                f"{allowed:.0%}): the derivative of the renderer is wrong"
            )
            return Verdict("finite-differences", False, sentence)
        found.append(f"{name} {error:.1%} of {allowed:.0%}")
    sentence = "gradients agree with differences of the loss (off by at most, of what is allowed): "
    return Verdict("finite-differences", True, sentence + ", ".join(found))


def cutoff_effect(name: str, opacity: float) -> float:
    """By how much a true difference exceeds a right gradient, because alpha ends at 1/255.

    A Gaussian is drawn where alpha is above 1/255, and no derivative knows that this region grows
    or moves. For a round Gaussian of opacity o before residuals that are constant (opacity) or
    linear (position) in space, the jump at its border over the integral inside of it is
    1 / (255 o - 1) and L / (255 o - 1 - L) with L = ln(255 o): 4 % and 15 % for o = 0.1. Colors
    have none.
    """
    if name == "sh0":
        return 0.0
    ratio = max(opacity / MIN_ALPHA, 1.0 + 1e-3)
    level = float(np.log(ratio)) if name == "means" else 0.0
    jump = level if name == "means" else 1.0
    return jump / (ratio - 1.0 - level)


@jax.jit
def _probes(gradient: jax.Array, gaussians: Params) -> dict[str, jax.Array]:
    """Of the Gaussians of largest gradient: row, gradient and its norm, opacity, standard width."""
    totals = jnp.sum(jnp.abs(gradient.reshape(gradient.shape[0], -1)), axis=1)
    row = jax.lax.top_k(totals, PROBED)[1]
    chosen = gradient[row]
    return {
        "row": row,
        "gradient": chosen,
        "size": jnp.linalg.norm(chosen.reshape(PROBED, -1), axis=1),
        "opacity": jax.nn.sigmoid(gaussians["opacities"][row]),
        "width": jnp.exp(jnp.mean(gaussians["scales"][row], axis=1)),
    }


@jax.jit
def _moved(values: jax.Array, row: jax.Array, by: jax.Array) -> jax.Array:
    return values.at[row].add(by)


def _difference_error(
    loss, gaussians, name: str, probe: dict[str, np.ndarray], allowed: float
) -> float:
    """Relative error of the derivative along the gradient of one Gaussian's parameter."""
    row, size = probe["row"], float(probe["size"])
    if size == 0:
        return 1.0
    step = {"opacities": 0.05, "sh0": 0.05}.get(name, 0.1 * float(probe["width"]))
    direction = probe["gradient"] / probe["size"]
    best = np.inf
    # A long step leaves the linear range and a short one drowns in rounding: the better one counts.
    for length in (step, 0.3 * step):
        values = [
            float(loss(gaussians | {name: _moved(gaussians[name], row, by * direction)}))
            for by in (np.float32(length), np.float32(-length))
        ]
        slope = (values[0] - values[1]) / (2 * length)
        error = abs(slope - size) / size
        best = error if error < best else best  # never a NaN
        if best <= allowed:
            break
    return best


def identical_evaluations(history: Sequence[Mapping[str, float]]) -> Verdict | None:
    """Three evaluations in a row with exactly the same score: the model does not change."""
    last = [row["psnr"] for row in history[-3:] if "psnr" in row]
    if len(last) < 3 or len(set(last)) > 1:
        return None
    sentence = (
        f"three evaluations in a row gave exactly {last[0]:.6f} dB: the rendered images do not "
        "change any more, so the model is not being trained"
    )
    return Verdict("identical-evaluations", False, sentence)


def plausible_psnr(history: Sequence[Mapping[str, float]], photographs: bool) -> Verdict | None:
    """More than 45 dB on photographs is a bug of the measurement until proven otherwise."""
    if not history or not photographs:
        return None
    for name in ("psnr", "train_psnr"):
        value = history[-1].get(name, 0.0)
        if value > PHOTOGRAPH_PSNR_LIMIT:
            sentence = (
                f"{name} is {value:.1f} dB, beyond {PHOTOGRAPH_PSNR_LIMIT:.0f} dB, which no method "
                "reaches on photographs; compare the images in artifacts/ with the photographs"
            )
            return Verdict("plausible-psnr", False, sentence, warning=True)
    return Verdict("plausible-psnr", True, "scores are in the range of photographs")


def held_out_falls(history: Sequence[Mapping[str, float]]) -> Verdict | None:
    """Held-out views get worse while training views get better: they are learned by heart.

    Both are compared with the evaluation that was best on held-out views, so that an opacity reset,
    after which both are worse, is no finding.
    """
    scored = [row for row in history if {"psnr", "train_psnr"} <= row.keys()]
    if len(scored) < 2:
        return None
    best, last = max(scored[:-1], key=lambda row: row["psnr"]), scored[-1]
    fall = best["psnr"] - last["psnr"]
    rise = last["train_psnr"] - best["train_psnr"]
    if fall < HELD_OUT_FALL or rise <= 0:
        return Verdict("held-out-falls", True, "held-out PSNR does not fall as training PSNR rises")
    since = f" since step {best['step']:.0f}" if "step" in best else ""
    sentence = (
        f"PSNR of held-out views fell from {best['psnr']:.2f} to {last['psnr']:.2f} dB{since} "
        f"while that of training views rose from {best['train_psnr']:.2f} to "
        f"{last['train_psnr']:.2f} dB: the training views are being learned by heart; use the best "
        "checkpoint (--step best), stop earlier, allow fewer Gaussians (config.model.cap_max) or "
        "take more photographs"
    )
    return Verdict("held-out-falls", False, sentence, warning=True)


def idle_refinement(ledger: Sequence[Mapping[str, float]]) -> Verdict | None:
    """Three refinements in a row that added, moved and removed nothing."""
    last = list(ledger[-3:])
    if len(last) < 3:
        return None
    if any(row.get(f"densify/{name}", 0.0) for row in last for name in CHANGES):
        return Verdict("idle-refinement", True, "refinements change the number of Gaussians")
    quantiles = ", ".join(
        f"{name.removeprefix('densify/gradient_q')} % {last[-1][name]:.2e}"
        for name in last[-1]
        if name.startswith("densify/gradient_q")
    )
    sentence = "three refinements in a row changed nothing"
    if quantiles:
        threshold = last[-1].get("densify/threshold", 0.0)
        sentence += (
            f"; the threshold is {threshold:.2e} and the screen gradients have the quantiles "
            f"{quantiles}"
        )
    return Verdict("idle-refinement", False, sentence, warning=True)


def of_evaluations(history: Sequence[Mapping[str, float]], photographs: bool) -> list[Verdict]:
    """After each evaluation, oldest first; `photographs`: not a synthetic scene."""
    verdicts = (
        identical_evaluations(history),
        plausible_psnr(history, photographs),
        held_out_falls(history),
    )
    return [verdict for verdict in verdicts if verdict is not None]


def of_refinements(ledger: Sequence[Mapping[str, float]]) -> list[Verdict]:
    """After each refinement; rows of the ledger, oldest first."""
    verdict = idle_refinement(ledger)
    return [] if verdict is None else [verdict]


def overfit(before: Mapping[str, float], after: Mapping[str, float]) -> Verdict:
    """Whether the fitted views are reproduced; not a matter of a falling loss."""
    start, end = before["psnr"], after["psnr"]
    needed = max(OVERFIT_PSNR, start + 3.0)
    sentence = f"PSNR on the fitted views went from {start:.1f} to {end:.1f} dB"
    return Verdict("overfit", end >= needed, f"{sentence} (needed: {needed:.1f} dB)")

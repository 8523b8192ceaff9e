"""Whether the photographs still teach the Gaussians anything, at every update of a run.

A run can go on for hours on its regularizers alone: the loss falls, no group has a zero gradient,
and nothing is learned from the images. So the gradients of the *data terms* (l1, ssim, and depth
where it is supervised: all that goes through the renderer) are measured apart from those of the
regularizers, on the device and for each parameter, and a guard on the host looks at them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from splats.guards import NEEDED_GRADIENTS
from training.guards.watch import note, stop
from training.verdict import Verdict

EXPECTED_FRACTION = 0.5  # of the visible Gaussians have a gradient in their position


def metrics(
    gradients: dict[str, jax.Array], probe_gradients: dict[str, jax.Array], visible: jax.Array
) -> dict[str, jax.Array]:
    """What one update logs of its gradients; float32 scalars.

    Args:
      gradients: of the whole loss, per parameter of the Gaussians, [N, ...].
      probe_gradients: of the data terms, where a parameter has regularizers as well; others are
        ignored.
      visible: bool [N], rows that some view of the update has seen.

    Returns:
      `grad_norm_data/<parameter>`; `grad_norm_regularizer/<parameter>` where there is one (a
      difference of sums: it has the rounding error of the larger one); `reached_fraction`, of the
      visible Gaussians those whose mean has a gradient that is not zero (0 if none is visible).
    """
    probed = {name: leaf for name, leaf in probe_gradients.items() if name in gradients}
    data = gradients | probed
    found = {f"grad_norm_data/{name}": _norm(leaf) for name, leaf in data.items()}
    for name, leaf in probed.items():
        found[f"grad_norm_regularizer/{name}"] = _norm(gradients[name] - leaf)
    reached = visible & jnp.any(data["means"] != 0, axis=1)
    count = jnp.sum(visible.astype(jnp.float32))
    # A few Gaussians hide behind others; if most do not feel the image, the renderer is cut off.
    found["reached_fraction"] = jnp.sum(reached.astype(jnp.float32)) / jnp.maximum(count, 1.0)
    return found


def _norm(leaf: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(leaf)))


class GradientHealth:
    """Stops a run whose data terms no longer reach the Gaussians; warns when they reach few.

    One update alone is no proof: a single photograph may be masked, black, or taken where there
    are no Gaussians. It is said once; `patience` updates in a row stop the run. Rotations and
    higher harmonics are exempt: round Gaussians have no gradient in the former, and degree 0 none
    in the latter.
    """

    name = "gradient-health"
    promise = "the data terms gave means, opacities, scales and base colors a gradient"

    def __init__(self, patience: int):
        self.patience = patience
        self.sick, self.few = 0, 0  # updates in a row
        self.said_sick, self.said_few = False, False

    def check(self, step: int, metrics: Mapping[str, float]) -> Verdict | None:
        if metrics.get("replay"):  # held back to be made again with more capacity
            return None
        finding = _finding(metrics)
        if finding is not None:
            self.sick += 1
            return self._sickness(step, *finding)
        self.sick = 0
        self.few = self.few + 1 if metrics["reached_fraction"] < EXPECTED_FRACTION else 0
        if self.few < self.patience or self.said_few:
            return None
        self.said_few = True
        sentence = (
            f"only {metrics['reached_fraction']:.0%} of the Gaussians in view at step {step} had a "
            f"gradient in their position, and less than {EXPECTED_FRACTION:.0%} in the "
            f"{self.patience - 1} updates before; many may be hidden behind others, otherwise "
            "check opacities and sizes at the start"
        )
        return note(self.name, sentence)

    def _sickness(self, step: int, found: str, advice: str) -> Verdict | None:
        if self.sick >= self.patience:
            sentence = f"{found} for {self.sick} updates in a row, up to step {step}; {advice}"
            return stop(self.name, sentence)
        if self.said_sick:
            return None
        self.said_sick = True
        return note(self.name, f"{found} at step {step}; {advice}")


def _finding(metrics: Mapping[str, float]) -> tuple[str, str] | None:
    """What is wrong with the gradients of an update, and what to do; None if nothing is."""
    if metrics["visible"] == 0:
        return (
            "no Gaussian was visible",
            "check the poses of the cameras, and what refinements and opacity resets have left "
            "(the ledger, config.densify.prune_opa)",
        )
    norms = {name: metrics[f"grad_norm_data/{name}"] for name in NEEDED_GRADIENTS}
    sick = [name for name, norm in norms.items() if norm == 0 or not math.isfinite(norm)]
    if not sick:
        return None
    text = ", ".join(f"{name} {norm:.1e}" for name, norm in norms.items())
    return (
        f"the data terms gave no usable gradient to {', '.join(sick)} (norms: {text})",
        "they no longer depend on it, or are not finite: podvision replay of that step prints the "
        "norms of each term",
    )

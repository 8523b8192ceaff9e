"""What a stage adds to the base: its phases, their terms, and how strong they are.

The terms come from `losses.auxiliary`, their strength from `losses.balance`, their windows from
`phases`; this joins them for the task. `base` below is what acts throughout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from hand_object.config import Config
from hand_object.grasps import NEAR, Grasp
from hand_object.loss_config import PhaseConfig
from hand_object.losses import auxiliary, balance
from hand_object.losses.temporal import Neighbors
from hand_object.phases import check_phases, phase_table, windows
from hand_object.render.placement import Placement
from hand_object.render.scene import octaves_of
from training.errors import ConfigError
from training.loss import Context, LossTerm, Total
from training.optimizer import FROZEN
from training.paths import named_leaves, rebuild
from training.verdict import Table

# Folded into the key of an update for what a prior is asked; examples have their positions.
ASKED = 0x7FFFFFF0
# Above the cap that `losses.balance` keeps to, by what rounding may add.
ROUNDING = 1e-3
# SDS and smoothness change in every update; hands may keep clear of the object for long.
REQUIRED = {"sds": True, "contact": False, "temporal": True}


@dataclass(frozen=True, eq=False)
class Stage:
    """The auxiliary terms of a config.

    Attributes:
      total: updates of the stage.
      near: frames that `temporal` compares, by node.
      held: the hand that `sds` asks about; None where no hand holds the object.
    """

    config: Config
    total: int
    near: Mapping[str, Neighbors]
    held: auxiliary.Held | None = None

    @cached_property
    def phases(self) -> dict[str, PhaseConfig]:
        return self.config.phases.enabled()

    @cached_property
    def windows(self) -> dict[str, tuple[int, int]]:
        return windows(self.config.phases, self.total)

    @property
    def shares(self) -> dict[str, float]:
        return {name: phase.share for name, phase in self.phases.items()}

    def tables(self) -> dict[str, Table]:
        """Which phase is active when, for the report."""
        return {"phases": phase_table(self.config.phases, self.total)} if self.phases else {}

    def loss_terms(self) -> dict[str, LossTerm]:
        """Declared as the core knows terms: with window, ramp and strength."""
        settings = self.config.balance
        # With shares of the gradient, the value of a term says nothing about its strength.
        cap = settings.most + ROUNDING if settings.mode == "fixed" else None
        return {
            name: LossTerm(self._coefficient(name), REQUIRED[name], self.windows[name], cap)
            for name in self.phases
        }

    def _coefficient(self, name: str) -> Callable[[jax.Array, Any], jax.Array]:
        settings, phase, start = self.config.balance, self.phases[name], self.windows[name][0]

        def coefficient(applied: jax.Array, model_state: Any) -> jax.Array:
            strength = jnp.float32(phase.coefficient)
            if settings.mode == "gradient_share":
                strength = model_state["balance"]["terms"][name]["factor"]
            return balance.ramp(applied, start, settings.ramp) * strength

        return coefficient

    def check(self, labels: Mapping[str, str], grasps: Mapping[str, Grasp]) -> None:
        """Raises ConfigError where a phase that is on would change nothing.

        Args:
          labels: optimizer group of each parameter, by path.
        """
        check_phases(self.config.phases, self.config.balance, self.total)
        for name in self.phases:
            self.moved(name, labels)
        for name in {"sds", "contact"} & self.phases.keys():
            if not any(own.holding.any() for own in grasps.values()):
                raise ConfigError(
                    f"config.phases.{name} is on, but in no frame does a hand hold the object "
                    f"(skin within {1000 * NEAR:.0f} mm of its first surface, masks that touch); "
                    "look at the poses of the data, or set its coefficient to 0"
                )

    def init_state(self) -> balance.State:
        return balance.init_balance(list(self.phases))

    def totals(
        self,
        params: Any,
        context: Context,
        placed: Mapping[str, Placement],
        frames: jax.Array,
        inside: Mapping[str, jax.Array] | None = None,
    ) -> dict[str, Total]:
        """Each term, without factor; outside of its window nothing is computed.

        Args:
          inside: whether a term is asked for; None: whether its window is open.
        """
        made = {
            "sds": lambda: self._sds(params, context, placed, frames),
            "contact": lambda: self._contact(params, context, placed, frames),
            "temporal": lambda: auxiliary.temporal_total(
                params["poses"], context.resident["statics"], self.near, self.config.phases.temporal
            ),
        }
        found = {}
        for name in self.phases:
            start, stop = self.windows[name]
            now = (context.applied >= start) & (context.applied < stop)
            if name == "sds":
                now &= (context.applied - start) % self.config.phases.sds.every == 0
            asked = now if inside is None else inside[name]
            found[name] = jax.lax.cond(asked, made[name], auxiliary.nothing)
        return found

    def _sds(self, params, context: Context, placed, frames) -> Total:
        model, held = self.config.model, self.held
        assert held is not None
        return auxiliary.sds_total(
            params,
            model,
            placed,
            context.resident,
            frames,
            jax.random.fold_in(context.update_key, ASKED),
            held,
            self.config.phases.sds,
            octaves_of("object", model, self.config.coarse_step(context.applied)),
        )

    def _contact(self, params, context: Context, placed, frames) -> Total:
        model = self.config.model
        return auxiliary.contact_total(
            params,
            model,
            placed,
            context.resident["grasps"],
            frames,
            self.config.phases.contact,
            octaves_of("object", model, self.config.coarse_step(context.applied)),
        )

    def restrained(
        self, context: Context, base: Mapping[str, jax.Array], totals: Mapping[str, Total]
    ) -> tuple[dict[str, Total], balance.State, dict[str, Total]]:
        """Totals within their limits, the new state, and what to log of it."""
        state = context.model_state["balance"]
        terms = self.loss_terms()
        factors = {n: terms[n].factor(context.applied, context.model_state) for n in totals}
        first = context.part == 0
        kept, after = balance.restrained(state, base, totals, factors, self.config.balance, first)
        one = jnp.float32(1.0)
        metrics = {"leaps": Total(after["spikes"].astype(jnp.float32), one)}
        shares = balance.gradient_shares(after)
        for name, own in after["terms"].items():
            metrics[f"gradient_share/{name}"] = Total(shares[name], one)
            metrics[f"phase/{name}"] = Total(own["active"].astype(jnp.float32), one)
            metrics[f"measured/{name}"] = Total(own["measured"].astype(jnp.float32), one)
        return kept, after, metrics

    def moved(self, name: str, labels: Mapping[str, str]) -> list[str]:
        """Paths of the trained parameters that a term moves.

        Args:
          labels: optimizer group of each parameter, by path.

        Raises:
          ConfigError: there are none.
        """
        moves = {
            "sds": (auxiliary.POSES, auxiliary.OBJECT_SDF),
            "temporal": (auxiliary.POSES,),
            "contact": tuple(
                {"poses": auxiliary.POSES, "object_sdf": auxiliary.OBJECT_SDF}[part]
                for part in self.config.phases.contact.moves.split("+")
            ),
        }[name]
        found = [
            path
            for path, label in labels.items()
            if label != FROZEN and any(re.fullmatch(pattern, path) for pattern in moves)
        ]
        if not found:
            raise ConfigError(
                f"config.phases.{name} is on, but nothing that it moves is trained; set "
                "config.poses.refine_hands or refine_object to True, or its coefficient to 0"
            )
        return found

    def measured(
        self,
        params: Any,
        context: Context,
        labels: Mapping[str, str],
        base: Callable[[Any], jax.Array],
        terms: Callable[[Any, Mapping[str, jax.Array]], dict[str, Total]],
    ) -> balance.State:
        """The state of the balance after gradients were measured, where a window is open or near.

        Args:
          labels: as for `moved`.
          base: parameters -> the weighted loss without auxiliary terms.
          terms: parameters, and which terms are asked for -> those terms.
        """
        state, soon = context.model_state["balance"], self.config.balance.every
        applied = context.applied
        due = {
            name: (applied + soon >= start) & (applied < stop)
            for name, (start, stop) in self.windows.items()
        }
        moved = {name: self.moved(name, labels) for name in self.phases}
        leaves = named_leaves(params)
        chosen = {path: leaves[path] for path in sorted({p for own in moved.values() for p in own})}

        def gradient(value: Callable[[Any], jax.Array]) -> dict[str, jax.Array]:
            return jax.grad(lambda some: value(rebuild(params, leaves | some)))(chosen)

        def measure() -> balance.State:
            of_base = gradient(base)
            own = {
                name: _norm(gradient(lambda p, n=name: terms(p, due)[n].mean()), moved[name])
                for name in self.phases
            }
            norms = {name: _norm(of_base, moved[name]) for name in self.phases}
            return balance.measured(state, norms, own, due, self.shares, self.config.balance)

        anyone = jnp.any(jnp.stack(list(due.values())))
        return jax.lax.cond(anyone, measure, lambda: state)


def _norm(gradients: Mapping[str, jax.Array], paths: list[str]) -> jax.Array:
    return jnp.sqrt(sum((jnp.sum(jnp.square(gradients[p])) for p in paths), jnp.float32(0.0)))

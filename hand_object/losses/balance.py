"""How strong auxiliary terms are beside the base, so that a new one helps and never takes over.

Two ways: `fixed`, where the coefficient of the config counts and the share of the *value* of a term
is capped in every update; `gradient_share`, where each term gets a share of the *gradient* on what
it moves. The gradients of the base and of each term are measured every few updates, apart from each
other, and their moving averages give the factor:

    factor_k = share_k / (1 - sum of shares) * |g_base| / |g_k|

In both ways a term begins with a ramp, and where the whole loss leaps above its usual size the
auxiliary terms are left out of the update. Pure functions; the state is part of `model_state`:

    {"loss": [], "seen": [], "spikes": [], "terms": {name: {"base", "own", "factor", "measured",
     "active": []}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hand_object.loss_config import BalanceConfig
from training.loss import Total

State = dict[str, Any]
LOSS_MEMORY = 0.98  # of the moving average of the loss
LEAST_SEEN = 20  # updates before a leap can be told
_TINY = 1e-30


def init_balance(names: list[str]) -> State:
    """The state before the first update; {} without auxiliary terms."""
    if not names:
        return {}
    real, count = jnp.float32(0.0), jnp.int32(0)
    own = {"base": real, "own": real, "factor": real, "measured": count, "active": count}
    return {
        "loss": real,
        "seen": count,
        "spikes": count,
        "terms": {name: dict(own) for name in names},
    }


def ramp(applied: jax.Array, start: int, length: int) -> jax.Array:
    """1 / length at the first update of a window, 1 after `length` of them."""
    return jnp.clip((applied - start + 1) / length, 0.0, 1.0).astype(jnp.float32)


def share_ratio(shares: Mapping[str, float], name: str) -> float:
    """What a term must be beside the base so that it has its share of the sum of all."""
    return shares[name] / (1.0 - sum(shares.values()))


def measured(
    state: State,
    base: Mapping[str, jax.Array],
    own: Mapping[str, jax.Array],
    due: Mapping[str, jax.Array],
    shares: Mapping[str, float],
    config: BalanceConfig,
) -> State:
    """The state after a measurement.

    Args:
      base: norm of the gradient of the base on what each term moves.
      own: norm of the gradient of each term there, without any factor.
      due: whether a term is measured now; others keep what they have.
      shares: of the gradient, as configured.
    """
    terms = {
        name: _measured(before, base[name], own[name], due[name], share_ratio(shares, name), config)
        for name, before in state["terms"].items()
    }
    return state | {"terms": terms}


def _measured(before: State, base, own, due, ratio: float, config: BalanceConfig) -> State:
    # A batch without a frame of a grasp says nothing about how strong contact is.
    useful = due & (own > 0) & jnp.isfinite(own) & jnp.isfinite(base)
    memory = jnp.where(before["measured"] > 0, config.memory, 0.0)

    def averaged(old, new):
        return jnp.where(useful, memory * old + (1.0 - memory) * new, old)

    after = {"base": averaged(before["base"], base), "own": averaged(before["own"], own)}
    factor = ratio * after["base"] / (after["own"] + _TINY)
    # An average lags: what is measured now must not be above the cap either.
    cap = config.most / (1.0 - config.most) * base / (own + _TINY)
    factor = jnp.where(useful, jnp.minimum(factor, cap), before["factor"])
    return before | after | {"factor": factor, "measured": before["measured"] + useful}


def restrained(
    state: State,
    base: Mapping[str, jax.Array],
    terms: Mapping[str, Total],
    factors: Mapping[str, jax.Array],
    config: BalanceConfig,
    counted: jax.Array | bool = True,
) -> tuple[dict[str, Total], State]:
    """Auxiliary terms that keep to the cap and are left out of a leap, and the state after it.

    Args:
      base: weighted value of each term of the base.
      terms: auxiliary ones, without factors.
      factors: of each of them at this update; zero outside of its window.
      counted: whether this is the part of a batch that counts as the update.
    """
    still = jax.lax.stop_gradient
    usual = still(sum(base.values(), jnp.float32(0.0)))
    weighted = {name: still(factors[name] * total.mean()) for name, total in terms.items()}
    kept = {name: jnp.float32(1.0) for name in terms}
    if config.mode == "fixed":
        most = config.most / (1.0 - config.most) * jnp.abs(usual)
        kept = {n: jnp.minimum(1.0, most / (jnp.abs(w) + _TINY)) for n, w in weighted.items()}
    loss = usual + sum((kept[name] * value for name, value in weighted.items()), jnp.float32(0.0))
    limit = config.spike * state["loss"]
    leap = (state["seen"] >= LEAST_SEEN) & (loss > limit)
    kept = {name: jnp.where(leap, 0.0, share) for name, share in kept.items()}
    # A product with zero would keep a NaN.
    scaled = {
        name: total._replace(sum=jnp.where(kept[name] > 0, kept[name] * total.sum, 0.0))
        for name, total in terms.items()
    }
    acted = {name: (kept[name] * jnp.abs(weighted[name]) > 0) & counted for name in terms}
    return scaled, _advanced(state, loss, leap, limit, acted)


def _advanced(state: State, loss, leap, limit, acted: Mapping[str, jax.Array]) -> State:
    memory = jnp.where(state["seen"] > 0, LOSS_MEMORY, 0.0)
    # A leap counts as much as it is allowed: the average follows a loss that stays high.
    seen = jnp.where(leap, limit, loss)
    terms = {
        name: own | {"active": own["active"] + acted[name].astype(jnp.int32)}
        for name, own in state["terms"].items()
    }
    return {
        "loss": memory * state["loss"] + (1.0 - memory) * seen,
        "seen": state["seen"] + 1,
        "spikes": state["spikes"] + leap.astype(jnp.int32),
        "terms": terms,
    }


def gradient_shares(state: State) -> dict[str, jax.Array]:
    """Share of each term in the sum of all gradient norms, as measured last."""
    found = {}
    for name, own in state["terms"].items():
        weighted = own["factor"] * own["own"]
        found[name] = weighted / (weighted + own["base"] + _TINY)
    return found

"""Skill: how much better a model predicts than anything that does not see the volume could.

A predictor that ignores what it is shown can at best say one constant vector for each token
position. Under the mean absolute error the best constant is the median, in each dimension, of the
current targets at that position: no running average, so nothing lags behind the moving target.
*Skill* is 1 - error of the model / error of the best constants.

From n volumes the best constant is known only roughly. Fitted with the scored volume among the n,
its error is too small, by about 1 / 2n; fitted without it, too large by about as much. The mean of
both is what the constants of infinitely many volumes would reach. Volumes that were learned by
heart (the overfit test) are compared with the first alone: a blind predictor can learn the medians
of exactly those.

Inside the scan (`skill_position`) all predicted tokens count, on the retina (`skill_retina`) only
those, and the constants then are those of retina tokens.

All on the host. Legend: V volumes, P sampled token positions, S mask sets, D feature width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Volumes from which constants are fitted; where fewer are scored, training volumes are added.
VOLUMES = 64
# Volumes below which nothing is known of a position.
LEAST = 3
RANK_WANTED = 0.1  # of the possible rank; below it a skill is worth less
# Target values that are gathered on a host: positions are left out where there are more.
VALUES = 2**24


class TokenTargets(NamedTuple):
    """Current targets of some volumes at the sampled positions."""

    target_VxPxD: np.ndarray  # float32, normalized
    covered_VxP: np.ndarray  # bool: not padding
    retina_VxP: np.ndarray  # bool


class TokenErrors(NamedTuple):
    """What a model made of the volumes that are scored."""

    hidden_VxSxP: np.ndarray  # bool: the token was predicted in this mask set
    error_VxSxP: np.ndarray  # mean absolute error over the width; 0 where not hidden


def sampled_positions(tokens: int, width: int, volumes: int) -> np.ndarray:
    """Rising token ids at which skill is taken: all of them where that is affordable."""
    count = min(tokens, max(16, VALUES // max(1, volumes * width)))
    return np.sort(np.random.default_rng(0).permutation(tokens)[:count])


def skills(
    scored: TokenTargets, errors: TokenErrors, others: TokenTargets | None, by_heart: bool
) -> dict[str, float]:
    """`skill_position` and `skill_retina`; 0 where nothing could be scored.

    Args:
      scored: the volumes that the model was asked about.
      errors: its errors.
      others: further volumes from which constants are fitted; None: none.
      by_heart: the scored volumes are those that the model was trained on, and no others.
    """
    if others is not None:
        pool = TokenTargets(*(np.concatenate(both) for both in zip(scored, others)))
    else:
        pool = scored
    count = len(scored.target_VxPxD)
    found = {}
    for name, chosen in (("position", pool.covered_VxP), ("retina", pool.retina_VxP)):
        baseline_VxP = constant_errors(pool.target_VxPxD, chosen, count, by_heart)
        counted = errors.hidden_VxSxP & np.isfinite(baseline_VxP)[:, None]
        model = float(np.sum(errors.error_VxSxP, where=counted, dtype=np.float64))
        spread = np.broadcast_to(baseline_VxP[:, None], counted.shape)
        constant = float(np.sum(spread, where=counted, dtype=np.float64))
        found[f"skill_{name}"] = 1.0 - model / constant if constant > 0 else 0.0
    return found


def ranked(skill: float, rank: float) -> float:
    """The skill less what the features lack to a tenth of their possible rank.

    Collapse makes targets easy to predict, so that by skill alone the most collapsed checkpoint can
    be the best.

    Args:
      skill: inside of the scan.
      rank: RankMe over what it could be, 0..1.
    """
    return skill - max(0.0, 1.0 - rank / RANK_WANTED)


def constant_errors(
    target_VxPxD: np.ndarray, chosen_VxP: np.ndarray, count: int, by_heart: bool = False
) -> np.ndarray:
    """[count, P]: error of the best constants at the first `count` volumes, NaN where unknown.

    Args:
      target_VxPxD: targets of all volumes.
      chosen_VxP: which of them the constants are fitted to and scored at.
      by_heart: take the constants fitted to all chosen volumes, the scored one included.
    """
    known_P = chosen_VxP.sum(axis=0) if len(chosen_VxP) else np.zeros(0, int)
    # What is not chosen sorts behind everything.
    values = np.where(chosen_VxP[..., None], target_VxPxD, np.inf)
    order = np.argsort(values, axis=0, kind="stable")
    sorted_VxPxD = np.take_along_axis(values, order, axis=0)
    with_it = _median(sorted_VxPxD, known_P, None)
    errors = _distance(target_VxPxD[:count], with_it)
    if not by_heart:
        rank = np.argsort(order, axis=0, kind="stable")[:count]
        without_it = _median(sorted_VxPxD, known_P - 1, rank)
        errors = 0.5 * (errors + _distance(target_VxPxD[:count], without_it))
    usable = chosen_VxP[:count] & (known_P >= LEAST)[None]
    return np.where(usable, errors, np.nan)


def _median(
    sorted_VxPxD: np.ndarray, count_P: np.ndarray, left_out: np.ndarray | None
) -> np.ndarray:
    """Median of the first `count_P` sorted values, without the one of rank `left_out`."""
    total = np.zeros(1, sorted_VxPxD.dtype)
    for middle_P in ((count_P - 1) // 2, count_P // 2):
        place = np.clip(middle_P, 0, None)[None, :, None]
        place = place + (0 if left_out is None else (place >= left_out))
        place = np.minimum(place, len(sorted_VxPxD) - 1)
        shape = (place.shape[0], *sorted_VxPxD.shape[1:])
        total = total + np.take_along_axis(sorted_VxPxD, np.broadcast_to(place, shape), axis=0)
    return 0.5 * total


def _distance(target_VxPxD: np.ndarray, constant: np.ndarray) -> np.ndarray:
    # Infinite where nothing was chosen; the caller drops those.
    finite = np.where(np.isfinite(constant), constant, 0.0)
    return np.abs(target_VxPxD - finite).mean(axis=-1)

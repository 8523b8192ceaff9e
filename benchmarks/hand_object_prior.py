"""Whether the embedded prior completes a held object of which only one half is known.

The distances of an object that the prior has not seen, on its grid of 16^3, are free numbers. Those
of the half toward the little finger are fitted to the truth; those of the other half start as if
the object were cut there. Adam takes the same steps with score distillation and without. Reported
for each object: the error of the unknown half (mean absolute difference of cut-off distances, in
units of the cut-off) and the Chamfer distance of the unknown half's surface (mm, sum of both mean
ways), as the median of three seeds.

Run: python benchmarks/hand_object_prior.py [--steps 100] [--weight 1e-3] [--mode xstart]
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

# This folder has files named as the packages that they measure: look for packages one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.spatial import KDTree
from skimage.measure import marching_cubes

from hand_object.prior.grasps import default_hand, grasp
from hand_object.prior.grid import UNIT, grid_points, hand_grid, object_grid
from hand_object.prior.places import MINI
from hand_object.prior.prior_file import load_prior
from hand_object.prior.sds import SdsConfig, sds_of_grids
from hand_object.prior.solids import FAMILIES
from hand_object.prior.trained_prior import TrainedPrior

RATE, KNOWN = 0.02, 1000.0  # units per step; weight of the known half
OBJECTS = ("bottle", "box", "mug")  # the mug's family was never learned
SEEDS = (0, 1, 2)
UNSEEN = 7  # apart from the streams of training and evaluation


@partial(jax.jit, static_argnames=("weight", "settings"))
def step(prior: TrainedPrior, distances, moments, truth, known, hands, weight, key, settings):
    """One step of Adam on distances [N]."""

    def loss(values):
        grid = object_grid(values, prior.grid)
        wrong = KNOWN * jnp.sum(jnp.square(grid - truth) * known) / jnp.sum(known)
        if not weight:
            return wrong
        return wrong + weight * sds_of_grids(prior, grid, hands, key, settings).mean()

    gradient = jax.grad(loss)(distances)
    change, moments = optax.adam(RATE).update(gradient, moments)
    return optax.apply_updates(distances, change), moments


def surface(distances: np.ndarray, limit: float) -> np.ndarray:
    """[V, 3] meters; empty without a surface."""
    side = round(len(distances) ** (1 / 3))
    volume = distances.reshape((side,) * 3)
    if not volume.min() < 0 < volume.max():
        return np.zeros((0, 3))
    vertices = marching_cubes(volume, 0.0, spacing=(2 * limit / (side - 1),) * 3)[0]
    return (vertices - limit) * UNIT


def chamfer(found: np.ndarray, wanted: np.ndarray, cut: float) -> float:
    """mm, of the parts of both surfaces beyond the cut."""
    found, wanted = (points[points[:, 2] > cut] for points in (found, wanted))
    if not len(found) or not len(wanted):
        return float("nan")
    ways = KDTree(wanted).query(found)[0].mean(), KDTree(found).query(wanted)[0].mean()
    return 1000 * sum(ways)


def completed(prior: TrainedPrior, family: str, seed: int, weight: float, options) -> list[float]:
    """Error and Chamfer distance of the unknown half."""
    random = np.random.default_rng([UNSEEN, seed])
    held = grasp(default_hand(), FAMILIES[family](random), random)
    points = grid_points(prior.grid.object_size, prior.grid.limit).reshape(-1, 3).astype(float)
    exact = held.distance(points)
    cut = float(points[exact < 0, 2].mean())
    unknown = points[:, 2] > cut
    start = np.where(unknown, np.maximum(exact, points[:, 2] - cut), exact)
    distances = jnp.asarray(start, jnp.float32)
    truth = object_grid(jnp.asarray(exact, jnp.float32), prior.grid)
    known = jnp.asarray(~unknown, jnp.float32).reshape(truth.shape)
    hands = hand_grid(jnp.asarray(held.joints, jnp.float32), prior.grid)
    moments, key = optax.adam(RATE).init(distances), jax.random.key(seed)
    settings = SdsConfig(
        options.mode, reduction="sum", guidance=options.guidance, first=0.02, last=options.last
    )
    for number in range(options.steps):
        own = jax.random.fold_in(key, number)
        arguments = (prior, distances, moments, truth, known, hands)
        distances, moments = step(*arguments, weight, own, settings)
    error = np.abs(np.asarray(object_grid(distances, prior.grid) - truth)).ravel()[unknown].mean()
    found, limit = np.asarray(distances, np.float64), prior.grid.limit
    return [float(error), chamfer(surface(found, limit), surface(exact, limit), cut * UNIT)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", default=MINI)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--weight", type=float, default=1e-3)
    parser.add_argument("--mode", default="xstart")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--last", type=float, default=0.98, help="most noise, share of the steps")
    options = parser.parse_args()
    print(f"{'object':10} {'':8} {'error':>8} {'Chamfer mm':>11}   median of {len(SEEDS)} seeds")
    for family in OBJECTS:
        category = family if family != "mug" else None
        prior = load_prior(options.prior, category)
        for name, weight in (("without", 0.0), ("with SDS", options.weight)):
            rows = [completed(prior, family, seed, weight, options) for seed in SEEDS]
            error, distance = np.nanmedian(rows, axis=0)
            print(
                f"{family:10} {name:8} {error:8.4f} {distance:11.2f}   {np.round(rows, 3).tolist()}"
            )


if __name__ == "__main__":
    main()

"""G-HOP's checkpoint as a prior of ours: every array once, nothing left over, and it must work.

Its authors' license (CC-BY-NC) stays with the weights. CLIP's text encoder, which the file may
hold, is left aside: conditions are given as vectors.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.prior.diffusion import as_noise, guess, noisy_grids
from hand_object.prior.ghop_names import TEXT, entries
from hand_object.prior.grid import FULL_GRID, grid_points, hand_grid, truncated
from hand_object.prior.model.unet import UnetConfig
from hand_object.prior.model.vqvae import VqvaeConfig
from hand_object.prior.places import FILE
from hand_object.prior.prior_file import save_prior
from hand_object.prior.trained_prior import PriorForm, TrainedPrior
from training.errors import CheckpointError, InputError
from training.paths import named_leaves
from training.torch_file import read_torch_file, state_dict

FULL = PriorForm(FULL_GRID, UnetConfig(), VqvaeConfig(), "mano")
# Packages of whose objects a Lightning checkpoint carries some along.
CARRIED = ("omegaconf", "pytorch_lightning", "lightning", "lightning_fabric", "typing")
SHOWN = 5  # names of a list in a message
# What weights that work stay below: the mean error of a ball that is encoded and decoded, of
# values in [-1, 1], and the mean square error of noise guessed at half of the steps.
BALL_ERROR, NOISE_ERROR, NOISE_STEP = 0.1, 1.0, 500


def import_checkpoint(args: argparse.Namespace) -> list[str]:
    """Writes the prior to the work folder; returns lines that say what was imported.

    Raises:
      CheckpointError: the file is no checkpoint of the prior, or its weights do not work.
      InputError: there are no vectors of the conditions, or they do not fit.
    """
    conditions = read_conditions(args.conditions, FULL.unet.condition)
    tensors = state_dict(read_torch_file(args.source, CARRIED), args.source)
    left = [name for name in tensors if name.startswith(TEXT)]
    params = converted(
        {name: value for name, value in tensors.items() if name not in left}, FULL, args.source
    )
    empty = jnp.asarray(conditions[""])
    prior = TrainedPrior(jax.tree.map(jnp.asarray, params), empty, empty, FULL)
    ball, noise = probed(prior)
    check_probe(ball, noise, args.source)
    args.workdir.mkdir(parents=True, exist_ok=True)
    save_prior(args.workdir / FILE, params, conditions, FULL, f"{args.source.name} of G-HOP")
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return [
        f"{len(tensors) - len(left)} arrays, {count:,} numbers of {args.source} written to "
        f"{args.workdir / FILE}; {len(left)} arrays of the text encoder were left aside",
        f"a ball came back with a mean error of {ball:.3f}; noise at step {NOISE_STEP} was guessed "
        f"with a mean square error of {noise:.3f}",
    ]


def read_conditions(path: Path | None, size: int) -> dict[str, np.ndarray]:
    """Vectors [size] by category, of an .npz; `empty` is that of the empty sentence, here `""`.

    Raises:
      InputError: there is no such file, or a vector has another size, or `empty` is missing.
    """
    advice = (
        f"give --conditions an .npz with CLIP's vector of {size} numbers for each category, and "
        "`empty` for the empty sentence"
    )
    if path is None:
        raise InputError(f"the checkpoint does not say what categories mean; {advice}")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: np.asarray(file[name], np.float32) for name in file.files}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); {advice}") from error
    wrong = [name for name, vector in found.items() if vector.shape != (size,)]
    if wrong or "empty" not in found:
        fault = f"{wrong[0]} is {found[wrong[0]].shape}" if wrong else "`empty` is missing"
        raise InputError(f"{path}: {fault}; {advice}")
    return {"" if name == "empty" else name: vector for name, vector in found.items()}


def converted(tensors: Mapping[str, np.ndarray], form: PriorForm, where: Path) -> dict[str, Any]:
    """Trees of a prior's parameters, float32, from arrays under G-HOP's names.

    Raises:
      CheckpointError: arrays that are missing, left over, of another shape or not finite, by name.
    """
    assert form.autoencoder is not None
    wanted = entries(form.unet, form.autoencoder)
    names = {entry.theirs for entry in wanted}
    missing, extra = sorted(names - tensors.keys()), sorted(tensors.keys() - names)
    if missing or extra:
        raise CheckpointError(
            f"the weights in {where} are not those of G-HOP's prior: {len(missing)} missing "
            f"({_list(missing)}), {len(extra)} left over ({_list(extra)}); give its last.ckpt"
        )
    shapes = form.shapes()
    leaves = named_leaves(shapes)
    arrays = {entry.ours: entry.to_ours(np.asarray(tensors[entry.theirs])) for entry in wanted}
    wrong = [
        f"{entry.theirs} {tensors[entry.theirs].shape}"
        for entry in wanted
        if arrays[entry.ours].shape != leaves[entry.ours].shape
    ]
    broken = [e.theirs for e in wanted if not np.isfinite(arrays[e.ours]).all()]
    if wrong or broken:
        fault = "have other shapes than G-HOP's" if wrong else "hold numbers that are not finite"
        raise CheckpointError(f"the weights in {where} {fault}: {_list(wrong or broken)}")
    ordered = [np.ascontiguousarray(arrays[name], np.float32) for name in leaves]
    return jax.tree.unflatten(jax.tree.structure(shapes), ordered)


def probed(prior: TrainedPrior) -> tuple[float, float]:
    """Mean error of a ball through the autoencoder, mean square error of guessed noise."""
    grid = prior.grid
    points = grid_points(grid.object_size, grid.limit)
    distances = np.linalg.norm(points - np.array([0.1, 0.0, -0.2]), axis=-1) - 0.25
    ball = truncated(jnp.asarray(distances), grid)[..., None]
    hand = hand_grid(jnp.asarray(_open_hand()), grid)

    @jax.jit
    def errors(prior: TrainedPrior, ball, hand):
        latent = prior.encode(ball, hand)
        decoded, _ = prior.decode(latent)
        steps = jnp.full(1, NOISE_STEP)
        noise = jax.random.normal(jax.random.key(7), latent[None].shape)
        noisy = noisy_grids(latent[None], noise, steps)
        unet = prior.form.unet
        found = guess(prior.params["unet"], unet, noisy, steps, prior.empty[None])
        found = as_noise(found, noisy, steps, unet.guesses)
        return jnp.mean(jnp.abs(decoded - ball)), jnp.mean(jnp.square(found - noise))

    first, second = errors(prior, ball, hand)
    return float(first), float(second)


def check_probe(ball: float, noise: float, where: Path) -> None:
    """Raises CheckpointError for weights that do not do what they are for."""
    if not (ball < BALL_ERROR and noise < NOISE_ERROR):
        raise CheckpointError(
            f"the weights in {where} fit by name but do not work: a ball comes back with a mean "
            f"error of {ball:.3g} (below {BALL_ERROR} is right), noise is guessed with a mean "
            f"square error of {noise:.3g} (below {NOISE_ERROR}); give a trained checkpoint"
        )


def _open_hand() -> np.ndarray:
    """[21, 3] units: straight fingers, about where a hand's are."""
    roots = np.array(
        [[0.3, 0.35, 0.15], [0, 0.4, 0], [0, 0.4, -0.1], [0, 0.4, -0.2], [0, 0.4, -0.3]]
    )
    along = np.arange(4)[:, None] * np.array([-0.13, 0.0, 0.0])
    fingers = (roots[:, None] + along[None]).reshape(20, 3)
    return np.concatenate([[[0.5, 0.4, -0.1]], fingers]).astype(np.float32)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"

"""Evaluation of a V-JEPA3D state: skill, collapse panel, per-scanner losses, pictures.

Masks are drawn from fixed keys, one per example, so that evaluations of different steps, meshes and
machines compare; they know of padding but not of the retina, so that they tell a predictor nothing
of the volume. Features are those of the target encoder, before normalization. A low loss alone
proves nothing: read the skill (`jepa3d.skill`) and the collapse panel.

Legend: B batch, N tokens of the grid, S sampled tokens, P positions at which skill
is taken, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa3d import diagnostics, pictures
from jepa3d.config import Config, MaskConfig
from jepa3d.inputs import Inputs, mask_sets, model_inputs
from jepa3d.labels import Labels
from jepa3d.losses import added, jepa_loss, skill
from jepa3d.model.jepa import Prediction, encode, normalize_targets, predict
from jepa3d.probe import probe
from jepa3d.skill import (
    VOLUMES,
    TokenErrors,
    TokenTargets,
    ranked,
    sampled_positions,
    skills,
)
from training.errors import InputError
from training.loss import Batch, Total
from training.mesh import Layout
from training.over_batches import BatchResult, over_batches
from training.source import Example, Source
from training.verdict import Evaluation

PyTree = Any
ATTEMPTS = 10  # records in a row that may be unreadable
PANEL_TOKENS = 4096  # tokens whose features enter the collapse panel
PANEL = (
    "rankme",
    "rankme_relative",
    "rankme_centered",
    "feature_std",
    "feature_std_relative",
    "feature_dead_fraction",
    "cosine_within_volume",
    "cosine_between_volumes",
)
PICTURES = 3  # volumes that are drawn, of different scanners where there are several


def evaluate(
    config: Config,
    masks: tuple[MaskConfig, ...],
    state: Any,
    source: Source,
    layout: Layout,
    others: Source | None = None,
    labels: Sequence[Labels] = (),
) -> Evaluation:
    """Metrics and pictures on a source; see `training.task.Task.evaluate`.

    Args:
      labels: of the examples of the source; each is probed for in the pooled features.
      others: training volumes; from some of them the baseline of the skill is fitted as well. None:
        the source holds volumes that were trained on.
    """
    scanners: tuple[str, ...] = getattr(source, "scanners", ("unknown",))
    # Rounded up: the panel gets at least PANEL_TOKENS tokens wherever the volumes have them.
    sampled = min(max(1, -(-PANEL_TOKENS // len(source))), config.model.tokens)
    pictured = volumes_to_draw(source)
    pool = max(len(source), VOLUMES)
    positions = sampled_positions(config.model.tokens, config.model.feature_dim, pool)
    swept = over_batches(
        VolumeScores(config, masks, len(scanners), sampled, tuple(positions.tolist())),
        (state.params, state.ema),
        source,
        config.evaluation.batch_size,
        layout,
        config.loader.workers,
        examine=lambda index, local: pictures.draw(local, config.model, masks),
        chosen=pictured,
    )
    images = {
        f"volume_{number}": swept.examined[index]
        for number, index in enumerate(pictured)
        if index in swept.examined
    }
    metrics = _losses(swept.sums, scanners) | _panel(swept.rows)
    fitted = None
    if others is not None and len(source) < VOLUMES:
        added_volumes = EvenlyChosen(others, VOLUMES - len(source))
        targets = over_batches(
            VolumeTargets(config, tuple(positions.tolist())),
            (state.ema,),
            added_volumes,
            config.evaluation.batch_size,
            layout,
            config.loader.workers,
        )
        fitted = TokenTargets(**targets.rows)
    scored = TokenTargets(**swept.rows["targets"])
    metrics |= skills(scored, TokenErrors(**swept.rows["errors"]), fitted, others is None)
    pooled = np.concatenate([swept.rows["pooled"], swept.rows["pooled_std"]], axis=1)
    metrics |= {f"probe/{one.name}": probe(pooled, one) for one in labels}
    metrics["skill_ranked"] = ranked(metrics["skill_position"], metrics["rankme_relative"])
    return Evaluation(metrics, images)


@dataclass(frozen=True)
class EvenlyChosen:
    """At most `count` examples of a source, evenly from all of it."""

    source: Source
    count: int

    @property
    def fingerprint(self) -> str:
        return f"{self.source.fingerprint}[{len(self)}]"

    def __len__(self) -> int:
        return min(self.count, len(self.source))

    def __getitem__(self, index: int) -> Example:
        # A record that cannot be read must not end an evaluation that only borrows it: the next
        # readable one stands in, and the training stream counts the loss.
        first = index * len(self.source) // len(self)
        for step in range(ATTEMPTS - 1):
            try:
                return self.source[(first + step) % len(self.source)]
            except InputError:
                continue
        return self.source[(first + ATTEMPTS - 1) % len(self.source)]

    def identity(self, index: int) -> str:
        return self.source.identity(index * len(self.source) // len(self))


@dataclass(frozen=True)
class VolumeTargets:
    """Current targets of volumes; compiled once for each configuration."""

    config: Config
    positions: tuple[int, ...]

    def __call__(self, ema: PyTree, batch: Batch) -> BatchResult:
        model = self.config.model
        seen = model_inputs(batch, None, model, self.config.data)
        target = normalize_targets(encode(model, ema, seen.volumes), model.levels)
        return BatchResult(rows=_targets_at(self.positions, target, seen))


def _targets_at(positions: tuple[int, ...], target_BxNxD: jax.Array, seen: Inputs) -> PyTree:
    """Fields of `TokenTargets`."""
    at = jnp.asarray(positions)
    return {
        "target_VxPxD": target_BxNxD[:, at],
        "covered_VxP": seen.covered_BxN[:, at],
        "retina_VxP": seen.foreground_BxN[:, at] & seen.covered_BxN[:, at],
    }


def volumes_to_draw(source: Source) -> tuple[int, ...]:
    """The examples that are drawn: the first of each scanner, then the first ones of all."""
    scanners = [row["scanner"] for row in getattr(source, "rows", ())]
    firsts = [index for index, name in enumerate(scanners) if name not in scanners[:index]]
    others = [index for index in range(min(len(source), PICTURES)) if index not in firsts]
    return tuple(sorted([*firsts, *others][:PICTURES]))


@dataclass(frozen=True)
class VolumeScores:
    """Everything that is computed of a batch of volumes; compiled once for each configuration.

    Attributes:
      scanners: how many the source knows.
      sampled: tokens of each volume that enter the collapse panel.
      positions: tokens at which the skill is taken.
    """

    config: Config
    masks: tuple[MaskConfig, ...]
    scanners: int
    sampled: int
    positions: tuple[int, ...]

    def __call__(self, params: PyTree, ema: PyTree, batch: Batch) -> BatchResult:
        model, key = self.config.model, jax.random.key(0)
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
        seen = model_inputs(batch, None, model, self.config.data)
        masks = mask_sets(keys, None, seen.covered_BxN, self.masks, model.grid)
        prediction = predict(model, params, {"encoder": ema}, seen.volumes, masks)
        errors = [
            jnp.mean(jnp.abs(one.prediction_BxTxD - one.target_BxTxD), axis=2)
            for one in prediction.sets
        ]
        panel = self._panel_rows(prediction.features_BxNxD, seen.foreground_BxN, keys)
        rows = panel | {
            "targets": _targets_at(self.positions, prediction.target_BxNxD, seen),
            "errors": self._errors_at(prediction, errors, model.tokens),
        }
        return BatchResult(
            sums=self._sums(prediction, errors, seen, batch),
            rows=rows,
            local={"volume": batch["volume"], **_for_pictures(prediction, errors, model.tokens)},
        )

    def _errors_at(self, prediction: Prediction, errors: list[jax.Array], tokens: int) -> PyTree:
        """Fields of `TokenErrors`."""
        spread = [
            _over_tokens(error, one.target_ids_BxT, tokens, 0.0)
            for one, error in zip(prediction.sets, errors)
        ]
        hidden = [
            _over_tokens(jnp.ones_like(error), one.target_ids_BxT, tokens, 0.0) > 0
            for one, error in zip(prediction.sets, errors)
        ]
        at = jnp.asarray(self.positions)
        return {
            "hidden_VxSxP": jnp.stack(hidden, axis=1)[:, :, at],
            "error_VxSxP": jnp.stack(spread, axis=1)[:, :, at],
        }

    def _sums(
        self, prediction: Prediction, errors: list[jax.Array], seen: Inputs, batch: Batch
    ) -> PyTree:
        weight, first = batch["weight"], prediction.sets[0]
        config = self.config
        result = jepa_loss(prediction, config.loss, config.model.grid, seen.covered_BxN, weight)
        per_sample, counts = [], []
        for one, error_BxT in zip(prediction.sets, errors):
            counted = jnp.take_along_axis(seen.covered_BxN, one.target_ids_BxT, axis=1)
            per_sample.append(jnp.sum(error_BxT * counted, axis=1))
            counts.append(jnp.sum(counted, axis=1))
        mean_B = reduce(add, per_sample) / jnp.maximum(reduce(add, counts), 1)
        one_hot = jax.nn.one_hot(batch["scanner"], self.scanners) * weight[:, None]
        return {
            "prediction": added(result.prediction),
            "baseline_mean": added(result.baseline_mean),
            "scanner_loss": jnp.sum(one_hot * mean_B[:, None], axis=0),
            "scanner_count": jnp.sum(one_hot, axis=0),
            "predicted_std": jnp.sum(weight * jnp.std(first.prediction_BxTxD, axis=(1, 2))),
            "wanted_std": jnp.sum(weight * jnp.std(first.target_BxTxD, axis=(1, 2))),
        }

    def _panel_rows(
        self, features_BxNxD: jax.Array, foreground_BxN: jax.Array, keys: jax.Array
    ) -> PyTree:
        # Foreground tokens in random order; the others, which come behind, are not counted. The
        # number 99 is beyond those of the mask sets (at most 64), whose keys come from `keys` too.
        order_keys = jax.vmap(lambda k: jax.random.fold_in(k, 99))(keys)
        noise_BxN = jax.vmap(lambda k: jax.random.uniform(k, foreground_BxN.shape[1:]))(order_keys)
        chosen_BxS = jnp.argsort(noise_BxN - 2.0 * foreground_BxN, axis=1)[:, : self.sampled]
        pooled_BxD, pooled_std_BxD = pooled_tokens(features_BxNxD, foreground_BxN)
        tokens_BxSxD = jnp.take_along_axis(features_BxNxD, chosen_BxS[:, :, None], axis=1)
        counted_BxS = jnp.take_along_axis(foreground_BxN, chosen_BxS, axis=1)
        return {
            "tokens": tokens_BxSxD,
            "counted": counted_BxS,
            "pooled": pooled_BxD,
            "pooled_std": pooled_std_BxD,
        }


def pooled_tokens(features_BxNxD: jax.Array, chosen_BxN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation over the chosen tokens, float32 [B, D]; 0 where there is none."""
    share = chosen_BxN / jnp.maximum(jnp.sum(chosen_BxN, axis=1), 1.0)[:, None]
    features = features_BxNxD.astype(jnp.float32)
    mean_BxD = jnp.einsum("bnd,bn->bd", features, share)
    square_BxD = jnp.einsum("bnd,bn->bd", (features - mean_BxD[:, None]) ** 2, share)
    return mean_BxD, jnp.sqrt(square_BxD)


def _over_tokens(
    values_BxT: jax.Array, ids_BxT: jax.Array, tokens: int, otherwise: float
) -> jax.Array:
    """Each token's value over the grid, `[batch, tokens]`."""
    count = values_BxT.shape[0]
    everywhere = jnp.full((count, tokens), otherwise)
    return everywhere.at[jnp.arange(count)[:, None], ids_BxT].set(values_BxT)


def _for_pictures(
    prediction: Prediction, errors: list[jax.Array], tokens: int
) -> dict[str, jax.Array]:
    """What `pictures.draw` takes besides the volume; of the first mask set."""
    first = prediction.sets[0]
    visible = jnp.ones(first.context_ids_BxK.shape)
    return {
        "features": prediction.features_BxNxD,
        "error": _over_tokens(errors[0], first.target_ids_BxT, tokens, -1.0),
        "visible": _over_tokens(visible, first.context_ids_BxK, tokens, 0.0),
    }


def _losses(sums: Mapping[str, Any], scanners: Sequence[str]) -> dict[str, float]:
    loss: Total = sums["prediction"]
    metrics = {
        "loss": float(loss.sum / max(loss.weight, 1e-9)),
        "skill_mean": float(skill(loss, sums["baseline_mean"])),
        "prediction_std_ratio": float(sums["predicted_std"] / max(sums["wanted_std"], 1e-9)),
    }
    for name, total, count in zip(scanners, sums["scanner_loss"], sums["scanner_count"]):
        if count > 0:
            metrics[f"loss/{name}"] = float(total / count)
    return metrics


def _panel(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The collapse panel on sampled foreground tokens and on pooled volumes.

    A volume without any foreground is left out; a source without any has no panel to be judged by,
    and its numbers are 0.
    """
    counted_BxS, tokens_BxSxD = np.asarray(rows["counted"]), np.asarray(rows["tokens"])
    tokens_SxD = jnp.asarray(tokens_BxSxD[counted_BxS])
    pooled = np.asarray(rows["pooled"])[counted_BxS.any(axis=1)]
    if not len(tokens_SxD):
        return dict.fromkeys(PANEL, 0.0)
    spread = diagnostics.feature_spread(tokens_SxD)
    # Its `same_position` is of no use here: each volume's tokens were sampled at other places.
    cosines = diagnostics.cosine_statistics(jnp.asarray(tokens_BxSxD), jnp.asarray(counted_BxS))
    rank = float(diagnostics.rank_me(tokens_SxD, centered=False))
    values = {
        "rankme": rank,
        # Of what it could be: as many directions as dimensions, or as tokens.
        "rankme_relative": rank / min(tokens_SxD.shape),
        "rankme_centered": diagnostics.rank_me(tokens_SxD, centered=True),
        "feature_std": spread.mean,
        "feature_std_relative": spread.relative,
        "feature_dead_fraction": spread.dead_fraction,
        "cosine_within_volume": cosines.within_volume,
        "cosine_between_volumes": cosines.between_volumes,
    }
    if len(pooled) > 1:
        values["rankme_volumes"] = diagnostics.rank_me(jnp.asarray(pooled), centered=True)
    return {name: float(value) for name, value in values.items()}

"""Evaluation of a V-JEPA3D state: skill, collapse panel, per-scanner losses, pictures.

Masks are drawn from fixed keys, one per example, so that evaluations of different steps, meshes and
machines compare. Features are those of the target encoder, before normalization. A low loss alone
proves nothing: read the skill against the positional mean, and the panel.

Legend: B batch, N tokens of the grid, S sampled tokens, D feature width.
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
from jepa3d.inputs import mask_sets, model_volumes
from jepa3d.losses import added, jepa_loss, skill
from jepa3d.model.jepa import Prediction, predict
from training.loss import Batch, Total
from training.mesh import Layout
from training.over_batches import BatchResult, over_batches
from training.source import Source
from training.verdict import Evaluation

PyTree = Any
PANEL_TOKENS = 4096  # tokens whose features enter the collapse panel
PICTURES = 3  # volumes that are drawn, of different scanners where there are several


def evaluate(
    config: Config, masks: tuple[MaskConfig, ...], state: Any, source: Source, layout: Layout
) -> Evaluation:
    """Metrics and pictures on a source; see `training.task.Task.evaluate`."""
    scanners: tuple[str, ...] = getattr(source, "scanners", ("unknown",))
    # Rounded up: the panel gets at least PANEL_TOKENS tokens wherever the volumes have them.
    sampled = min(max(1, -(-PANEL_TOKENS // len(source))), config.model.tokens)
    pictured = volumes_to_draw(source)
    swept = over_batches(
        VolumeScores(config, masks, len(scanners), sampled),
        (state.params, state.ema, state.model_state),
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
    return Evaluation(_losses(swept.sums, scanners) | _panel(swept.rows), images)


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
    """

    config: Config
    masks: tuple[MaskConfig, ...]
    scanners: int
    sampled: int

    def __call__(self, params: PyTree, ema: PyTree, positional: Any, batch: Batch) -> BatchResult:
        model, key = self.config.model, jax.random.key(0)
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
        volumes, foreground_BxN = model_volumes(batch, None, self.config.data)
        masks = mask_sets(keys, foreground_BxN, self.masks, model.grid)
        prediction = predict(model, params, {"encoder": ema}, volumes, masks)
        return BatchResult(
            sums=self._sums(prediction, positional, batch),
            rows=self._panel_rows(prediction.features_BxNxD, foreground_BxN, keys, batch),
            local={"volume": batch["volume"], **_for_pictures(prediction, model.tokens)},
        )

    def _sums(self, prediction: Prediction, positional: Any, batch: Batch) -> PyTree:
        weight, first = batch["weight"], prediction.sets[0]
        loss = self.config.loss
        result = jepa_loss(prediction, positional, loss, self.config.model.grid, weight)
        errors = [
            jnp.mean(jnp.abs(one.prediction_BxTxD - one.target_BxTxD), axis=(1, 2))
            for one in prediction.sets
        ]
        per_sample = reduce(add, errors) / len(errors)
        one_hot = jax.nn.one_hot(batch["scanner"], self.scanners) * weight[:, None]
        return {
            "prediction": added(result.prediction),
            "baseline_mean": added(result.baseline_mean),
            "baseline_position": added(result.baseline_position),
            "scanner_loss": jnp.sum(one_hot * per_sample[:, None], axis=0),
            "scanner_count": jnp.sum(one_hot, axis=0),
            "predicted_std": jnp.sum(weight * jnp.std(first.prediction_BxTxD, axis=(1, 2))),
            "wanted_std": jnp.sum(weight * jnp.std(first.target_BxTxD, axis=(1, 2))),
        }

    def _panel_rows(
        self, features_BxNxD: jax.Array, foreground_BxN: jax.Array, keys: jax.Array, batch: Batch
    ) -> PyTree:
        # Foreground tokens in random order, then the others: background dominates a volume. The
        # number 99 is beyond those of the mask sets (at most 64), whose keys come from `keys` too.
        order_keys = jax.vmap(lambda k: jax.random.fold_in(k, 99))(keys)
        noise_BxN = jax.vmap(lambda k: jax.random.uniform(k, foreground_BxN.shape[1:]))(order_keys)
        chosen_BxS = jnp.argsort(noise_BxN - 2.0 * foreground_BxN, axis=1)[:, : self.sampled]
        share = foreground_BxN.astype(jnp.float32)
        pooled = (
            jnp.einsum("bnd,bn->bd", features_BxNxD, share)
            / jnp.maximum(jnp.sum(share, axis=1), 1.0)[:, None]
        )
        tokens_BxSxD = jnp.take_along_axis(features_BxNxD, chosen_BxS[:, :, None], axis=1)
        return {"tokens": tokens_BxSxD, "pooled": pooled}


def _for_pictures(prediction: Prediction, tokens: int) -> dict[str, jax.Array]:
    """What `pictures.draw` takes besides the volume; of the first mask set."""
    first = prediction.sets[0]
    error_BxT = jnp.mean(jnp.abs(first.prediction_BxTxD - first.target_BxTxD), axis=-1)
    count = error_BxT.shape[0]
    rows, unknown = jnp.arange(count)[:, None], jnp.full((count, tokens), -1.0)
    return {
        "features": prediction.features_BxNxD,
        "error": unknown.at[rows, first.target_ids_BxT].set(error_BxT),
        "visible": jnp.zeros_like(unknown).at[rows, first.context_ids_BxK].set(1.0),
    }


def _losses(sums: Mapping[str, Any], scanners: Sequence[str]) -> dict[str, float]:
    loss: Total = sums["prediction"]
    metrics = {
        "loss": float(loss.sum / max(loss.weight, 1e-9)),
        "skill_mean": float(skill(loss, sums["baseline_mean"])),
        "skill_position": float(skill(loss, sums["baseline_position"])),
        "prediction_std_ratio": float(sums["predicted_std"] / max(sums["wanted_std"], 1e-9)),
    }
    for name, total, count in zip(scanners, sums["scanner_loss"], sums["scanner_count"]):
        if count > 0:
            metrics[f"loss/{name}"] = float(total / count)
    return metrics


def _panel(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The collapse panel on sampled foreground tokens and on pooled volumes."""
    tokens_BxSxD = jnp.asarray(rows["tokens"])
    tokens_SxD = tokens_BxSxD.reshape(-1, tokens_BxSxD.shape[-1])
    spread = diagnostics.feature_spread(tokens_SxD)
    # Its `same_position` is of no use here: each volume's tokens were sampled at other places.
    cosines = diagnostics.cosine_statistics(tokens_BxSxD)
    values = {
        "rankme": diagnostics.rank_me(tokens_SxD, centered=False),
        "rankme_centered": diagnostics.rank_me(tokens_SxD, centered=True),
        "feature_std": spread.mean,
        "feature_std_relative": spread.relative,
        "feature_dead_fraction": spread.dead_fraction,
        "cosine_within_volume": cosines.within_volume,
        "cosine_between_volumes": cosines.between_volumes,
    }
    if len(rows["pooled"]) > 1:
        values["rankme_volumes"] = diagnostics.rank_me(jnp.asarray(rows["pooled"]), centered=True)
    return {name: float(value) for name, value in values.items()}

"""Evaluation of a V-JEPA3D state: skill, collapse panel, per-scanner losses, pictures.

Masks are drawn from fixed keys, one per example, so that evaluations of different steps, meshes and
machines compare. Features are those of the target encoder, before normalization. A low loss alone
proves nothing: read the skill against the positional mean, and the panel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jepa3d import diagnostics, pictures
from jepa3d.losses import Measured, added, jepa_loss, skill
from jepa3d.model.jepa import predict
from training.loss import Batch
from training.mesh import Layout
from training.source import Source
from training.stream import evaluation_batches
from training.verdict import Evaluation

if TYPE_CHECKING:
    from jepa3d.task import JepaTask

PANEL_TOKENS = 4096  # tokens whose features enter the collapse panel
PICTURES = 3  # volumes that are drawn, of different scanners where there are several


def evaluate(task: JepaTask, state: Any, source: Source, layout: Layout) -> Evaluation:
    """Metrics and pictures on a source; see `training.task.Task.evaluate`."""
    scanners: tuple[str, ...] = getattr(source, "scanners", ("unknown",))
    sampled = max(1, -(-PANEL_TOKENS // len(source)))
    function = _compiled(task, len(scanners), min(sampled, task.config.model.tokens), layout)
    params = {"predictor": state.params["predictor"], "encoder": state.params["encoder"]}
    sums, panel, drawn, seen = [], [], [], set()
    for batch, indices in evaluation_batches(source, _batch_size(task, layout), layout):
        result = _host(function(params, state.ema, state.model_state, batch))
        sums.append(result["sums"])
        panel.append({name: x[: len(indices)] for name, x in result["panel"].items()})
        for row in range(len(indices)):
            scanner = int(result["panel"]["scanner"][row])
            if len(drawn) < PICTURES and (scanner not in seen or len(indices) <= PICTURES):
                seen.add(scanner)
                drawn.append({name: x[row] for name, x in result["pictures"].items()})
    totals = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *sums)
    joined = {name: np.concatenate([part[name] for part in panel]) for name in panel[0]}
    metrics = _losses(totals, scanners) | _panel(joined)
    images = {
        f"volume_{number}": pictures.draw(picture, task.config.model, task.masks)
        for number, picture in enumerate(drawn)
    }
    return Evaluation(metrics, images)


@lru_cache(maxsize=8)
def _compiled(task: JepaTask, scanners: int, sampled: int, layout: Layout) -> Callable:
    """One function for all evaluations of a run, so that it is compiled once."""
    function = partial(_evaluate_batch, task, scanners, sampled)
    return jax.jit(function, out_shardings=layout.replicated)


def _batch_size(task: JepaTask, layout: Layout) -> int:
    shards = layout.mesh.shape["data"] * layout.mesh.shape["fsdp"]
    return -(-task.config.evaluation.batch_size // shards) * shards


def _host(tree: Any) -> Any:
    """Replicated scanner arrays as numpy, on any number of processes."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), tree)


def _evaluate_batch(
    task: JepaTask,
    scanners: int,
    sampled: int,
    params: Any,
    ema: Any,
    positional: Any,
    batch: Batch,
) -> dict[str, Any]:
    """Sums of losses, features of sampled foreground tokens, and what the pictures need."""
    model, key = task.config.model, jax.random.key(0)
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
    volumes, foreground = task.volumes(batch, None)
    masks = task.sample_masks(keys, foreground)
    prediction = predict(model, params, {"encoder": ema}, volumes, masks)
    weight = batch["weight"]
    result = jepa_loss(prediction, positional, task.config.loss, model.grid, weight)
    first = prediction.sets[0]
    error_BxT = jnp.mean(jnp.abs(first.prediction_BxTxD - first.target_BxTxD), axis=-1)
    errors = [
        jnp.mean(jnp.abs(one.prediction_BxTxD - one.target_BxTxD), axis=(1, 2))
        for one in prediction.sets
    ]
    per_sample = reduce(add, errors) / len(errors)
    one_hot = jax.nn.one_hot(batch["scanner"], scanners) * weight[:, None]
    # Foreground tokens in random order, then the others: background dominates a volume.
    order_keys = jax.vmap(lambda k: jax.random.fold_in(k, 99))(keys)
    noise = jax.vmap(lambda k: jax.random.uniform(k, (model.tokens,)))(order_keys)
    chosen = jnp.argsort(noise - 2.0 * foreground, axis=1)[:, :sampled]
    features = prediction.features_BxNxD
    share = foreground.astype(jnp.float32)
    pooled = (
        jnp.einsum("bnd,bn->bd", features, share)
        / jnp.maximum(jnp.sum(share, axis=1), 1.0)[:, None]
    )
    rows = jnp.arange(len(weight))[:, None]
    unknown = jnp.full((len(weight), model.tokens), -1.0)
    return {
        "sums": {
            "prediction": added(result.prediction),
            "baseline_mean": added(result.baseline_mean),
            "baseline_position": added(result.baseline_position),
            "scanner_loss": jnp.sum(one_hot * per_sample[:, None], axis=0),
            "scanner_count": jnp.sum(one_hot, axis=0),
            "moments": jnp.stack(
                [
                    jnp.sum(weight * jnp.std(first.prediction_BxTxD, axis=(1, 2))),
                    jnp.sum(weight * jnp.std(first.target_BxTxD, axis=(1, 2))),
                ]
            ),
        },
        "panel": {
            "tokens": jnp.take_along_axis(features, chosen[:, :, None], axis=1),
            "pooled": pooled,
            "scanner": batch["scanner"],
        },
        "pictures": {
            "volume": batch["volume"],
            "features": features,
            "error": unknown.at[rows, first.target_ids_BxT].set(error_BxT),
            "visible": jnp.zeros_like(unknown).at[rows, first.context_ids_BxK].set(1.0),
        },
    }


def _losses(totals: Mapping[str, Any], scanners: Sequence[str]) -> dict[str, float]:
    loss = Measured(*totals["prediction"])
    metrics = {
        "loss": float(loss.sum / max(loss.weight, 1e-9)),
        "skill_mean": float(skill(loss, Measured(*totals["baseline_mean"]))),
        "skill_position": float(skill(loss, Measured(*totals["baseline_position"]))),
    }
    predicted, wanted = totals["moments"]
    metrics["prediction_std_ratio"] = float(predicted / max(wanted, 1e-9))
    for number, name in enumerate(scanners):
        if totals["scanner_count"][number] > 0:
            metrics[f"loss/{name}"] = float(
                totals["scanner_loss"][number] / totals["scanner_count"][number]
            )
    return metrics


def _panel(panel: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The collapse panel on sampled foreground tokens and on pooled volumes."""
    tokens_BxSxD = jnp.asarray(panel["tokens"])
    tokens_SxD = tokens_BxSxD.reshape(-1, tokens_BxSxD.shape[-1])
    spread = diagnostics.feature_spread(tokens_SxD)
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
    if len(panel["pooled"]) > 1:
        values["rankme_volumes"] = diagnostics.rank_me(jnp.asarray(panel["pooled"]), centered=True)
    return {name: float(value) for name, value in values.items()}

"""V-JEPA3D as a task: predict the features of hidden tokens from the visible ones.

The online encoder and the predictor are trained; the target encoder is the EMA of the online
encoder and lives in the train state's `ema`, never in the optimizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import jax
import jax.numpy as jnp

from jepa3d import dependence, evaluation, guards
from jepa3d.config import Config, MaskConfig
from jepa3d.data.account import COLUMNS, account_of
from jepa3d.data.source import VolumeSource
from jepa3d.inputs import Inputs, mask_sets, mask_shares, model_inputs
from jepa3d.labels import Labels, read_labels
from jepa3d.losses import added, dense_weight, jepa_loss, skill
from jepa3d.masks import check_masks, mask_preset
from jepa3d.model.counts import parameter_counts, volume_flops
from jepa3d.model.jepa import Prediction, init_params, predict
from training.capabilities import Augmented, Averaged, Guards
from training.errors import ConfigError
from training.loss import Batch, Context, LossOutput, LossTerm, Total
from training.optimizer import label_by_rules
from training.source import Sources
from training.state import TrainState
from training.task import Task
from training.verdict import Description, Evaluation, Table, Verdict

PyTree = Any
GROUPS = ((r"encoder/.*", "encoder"), (r"predictor/.*", "predictor"))
# A predictor that ignores what it sees of a volume can at best give the median of each position,
# skill 0; above this it has learned the volumes themselves.
OVERFIT_SKILL = 0.05


def make_task(config: Config) -> JepaTask:
    """The task of a config.

    Raises:
      ConfigError: masks that do not fit the grid, or no moving target encoder.
      InputError: a data folder that is missing, empty or of another shape.
    """
    if config.ema.kind == "none":
        raise ConfigError(
            "config.ema.kind = 'none' leaves V-JEPA3D without a target encoder; use cosine, linear "
            "or constant (constant with start = 1.0 is a deliberately frozen target)"
        )
    masks = config.masks or mask_preset(config.mask_preset, config.model.grid)
    for mask in masks:
        check_masks(mask, config.model.grid)
    return JepaTask(config, tuple(masks))


@dataclasses.dataclass(frozen=True)
class JepaTask(Task, Augmented, Averaged):
    """See the module docstring; methods are documented in `training.task` and `capabilities`."""

    config: Config
    masks: tuple[MaskConfig, ...]
    augmented: bool = True
    # What a checkpoint knows of how the records were prepared; None before there is one. Not part
    # of the hash, since a mapping has none.
    saved_preparation: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)

    @cached_property
    def loss_terms(self) -> dict[str, LossTerm]:  # type: ignore[override]
        terms = {"prediction": LossTerm()}
        if self.config.model.context_head:
            terms["dense"] = LossTerm(self._dense_weight, required=False)
        return terms

    def _dense_weight(self, applied: jax.Array, model_state: PyTree) -> jax.Array:
        del model_state
        return dense_weight(applied, self.config.loss)

    @cached_property
    def _train_source(self) -> VolumeSource:
        data = self.config.data
        return VolumeSource(data.folder, data.train_split, self.config.model.volume, data.scanners)

    @cached_property
    def _sources(self) -> Sources:
        data, volume = self.config.data, self.config.model.volume
        return Sources(
            self._train_source,
            {"validation": VolumeSource(data.folder, data.eval_split, volume, data.scanners)},
        )

    def sources(self) -> Sources:
        return self._sources

    @property
    def preparation(self) -> Mapping[str, Any]:
        """The settings (`PrepareSettings` as JSON) by which volumes became records.

        `podvision predict` prepares new volumes by them. A checkpoint's own come first, since the
        records may be gone by then.
        """
        if self.saved_preparation is not None:
            return self.saved_preparation
        return self._train_source.settings

    def metadata(self) -> dict[str, Any]:
        return {"preparation": dict(self.preparation)}

    def with_metadata(self, metadata: Mapping[str, Any]) -> Self:
        return dataclasses.replace(self, saved_preparation=metadata["preparation"])

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        return init_params(key, self.config.model), None

    def optimizer_groups(self, params: PyTree) -> PyTree:
        return label_by_rules(params, GROUPS)

    def averaged(self, params: PyTree, model_state: PyTree) -> PyTree:
        return params["encoder"]

    def describe(self) -> Description:
        counts = parameter_counts(self.config.model)
        return Description(
            {"encoder": counts.encoder, "predictor": counts.predictor, "target": counts.target},
            volume_flops(self.config.model, self.masks).total,
            {
                "volume": (self.config.model.volume, "uint8"),
                "foreground": (self.config.model.grid, "bool"),
                "valid_box": ((3, 2), "int32"),
                "mean": ((), "float32"),
                "std": ((), "float32"),
                "scanner": ((), "int32"),
            },
        )

    def loss(self, params: PyTree, context: Context, batch: Batch, key: jax.Array) -> LossOutput:
        # By position in the stream: no draw depends on the mesh or on the micro-batches.
        keys = jax.vmap(lambda p: jax.random.fold_in(context.update_key, p))(batch["position"])
        pairs = jax.vmap(jax.random.split)(keys)
        view_keys = pairs[:, 0] if self.augmented else None
        seen = model_inputs(batch, view_keys, self.config.model, self.config.data)
        masks = self.draw_masks(pairs[:, 1], seen)
        prediction = self.predicted(params, context.ema, seen, masks)
        config = self.config
        result = jepa_loss(prediction, config.loss, config.model.grid, seen.covered_BxN)
        prediction_error = added(result.prediction)
        terms = {"prediction": prediction_error}
        if self.config.model.context_head:
            terms["dense"] = added([m for m in result.dense if m is not None])
        one = jnp.ones((), jnp.float32)
        metrics = {
            # A skill is a ratio and does not add up: over micro-batches its mean is logged.
            # Evaluation divides the sums instead.
            "skill_mean": Total(skill(prediction_error, added(result.baseline_mean)), one),
        }
        for name, share in mask_shares(masks, seen.foreground_BxN, seen.covered_BxN).items():
            metrics[name] = Total(share, one)
        if len(self.masks) > 1:
            for number, measured in enumerate(result.prediction):
                metrics[f"loss_set/{number}"] = measured
        features = prediction.features_BxNxD
        metrics["feature_std"] = Total(jnp.mean(jnp.std(features, axis=(0, 1))), one)
        metrics = jax.lax.stop_gradient(metrics)
        return LossOutput(terms, context.model_state, metrics)

    def draw_masks(self, keys: jax.Array, seen: Inputs) -> list[tuple[jax.Array, jax.Array]]:
        """The mask sets of a training batch: on the retina, and never over padding."""
        grid = self.config.model.grid
        return mask_sets(keys, seen.foreground_BxN, seen.covered_BxN, self.masks, grid)

    def predicted(
        self,
        params: PyTree,
        target_encoder: PyTree,
        seen: Inputs,
        masks: Sequence[tuple[jax.Array, jax.Array]],
    ) -> Prediction:
        """What the loss compares: predictions, and targets of the averaged encoder."""
        return predict(self.config.model, params, {"encoder": target_encoder}, seen.volumes, masks)

    def tables(self) -> dict[str, Table]:
        index = self._train_source.index
        # The zeros do not appear in the rows.
        rows: list[tuple] = list(account_of(index, 0, 0.0).rows())
        return {"account": Table("Input files by scanner", COLUMNS, rows)}

    def guards(self) -> Guards:
        return Guards(
            names=guards.NAMES,
            start=self._start_verdicts,
            evaluation=lambda history: guards.of_evaluations(
                history, self.config.checkpoint.best_metric
            ),
        )

    def _start_verdicts(self, state: TrainState, batch: Batch, resident: PyTree) -> list[Verdict]:
        del resident
        self._labels(self._sources.evaluation["validation"])  # refused before anything is trained
        return [*guards.of_data(self._train_source), dependence.verdict(self, state, batch)]

    def evaluate(self, state: Any, source: Any, layout: Any) -> Evaluation:
        held_out = any(source is known for known in self._sources.evaluation.values())
        others = self._train_source if held_out else None
        labels = self._labels(source) if held_out else ()
        return evaluation.evaluate(self.config, self.masks, state, source, layout, others, labels)

    def _labels(self, source: Any) -> Sequence[Labels]:
        wanted = self.config.probe
        return read_labels(wanted.labels, wanted.columns, source.rows) if wanted.labels else ()

    def without_augmentation(self) -> Self:
        return dataclasses.replace(self, augmented=False)

    def overfit_verdict(self, before: Evaluation, after: Evaluation) -> Verdict:
        reached = after.metrics["skill_position"]
        sentence = (
            f"skill against the best constant of each position went from "
            f"{before.metrics['skill_position']:.3f} to {reached:.3f}; needed {OVERFIT_SKILL}"
        )
        return Verdict("overfit", reached >= OVERFIT_SKILL, sentence)

"""RT-DETR as a task: find every object of an image, and say its class.

The model state holds the statistics of the batch norms (and the constants of frozen ones). The
average follows parameters and statistics, and is what is evaluated, exported and predicted with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Hashable, Mapping
from functools import cached_property
from typing import Any, Self

import jax
import jax.numpy as jnp

from rtdetr import evaluation, guards
from rtdetr.boxes import cxcywh_norm
from rtdetr.config import Config
from rtdetr.data.dataset import ClassTable
from rtdetr.data.doctor import tables_of
from rtdetr.data.prepared import open_split
from rtdetr.data.scales import variants_of
from rtdetr.data.source import DetectionSource
from rtdetr.denoising import make_queries
from rtdetr.losses.criterion import criterion, terms
from rtdetr.model.counts import flops, parameter_counts
from rtdetr.model.detector import detect, init
from rtdetr.targets import Targets
from rtdetr.weights import remap
from training.capabilities import Augmented, Averaged, Guards, Inheriting, Varied
from training.errors import CheckpointError, ConfigError
from training.loss import Batch, Context, LossOutput, LossTerm, Total
from training.optimizer import FROZEN, label_by_rules
from training.schedules import longest_warmup
from training.source import Sources
from training.task import Task
from training.verdict import Description, Evaluation, Table, Verdict

PyTree = Any
# Of the run. A warm-up made for COCO would be most of a run on a few hundred images.
LONGEST_WARMUP = 0.1
# What fixed examples must reach: found, in the right class, and in the right place.
OVERFIT_AP50, OVERFIT_IOU = 0.95, 0.8


def make_task(config: Config) -> DetectorTask:
    """The task of a config.

    Raises:
      ConfigError: settings that do not go together.
    """
    decoder, scoring = config.model.decoder, config.scoring
    if scoring.layers > decoder.layers:
        raise ConfigError(
            f"config.scoring.layers = {scoring.layers}, but the decoder has {decoder.layers} "
            "layers; lower it (0 takes all)"
        )
    if config.data.max_objects > decoder.queries:
        raise ConfigError(
            f"config.data.max_objects = {config.data.max_objects} objects of an image cannot be "
            f"matched by {decoder.queries} queries; raise config.model.decoder.queries"
        )
    augment = config.data.augment
    mixes = augment.mosaic > 0 or augment.mixup > 0
    if mixes and augment.mixed.stop == augment.mixed.start:
        raise ConfigError(
            "config.data.augment.mosaic and mixup never happen, because augment.mixed is empty; "
            "set augment.mixed.start and stop as fractions of the run"
        )
    return DetectorTask(config)


@dataclasses.dataclass(frozen=True)
class DetectorTask(Task, Augmented, Averaged, Inheriting, Varied):
    """See the module docstring; methods are documented in `training.task` and `capabilities`."""

    config: Config
    augmented: bool = True
    # The canvas of this task; None stands for `config.data.size`.
    canvas: tuple[int, int] | None = None
    # What a checkpoint knows of the classes; None before there is one.
    saved_classes: ClassTable | None = None

    @cached_property
    def loss_terms(self) -> dict[str, LossTerm]:  # type: ignore[override]
        return terms(self.config.loss, self.config.model.decoder.layers)

    @cached_property
    def classes(self) -> ClassTable:
        """The class table, of the checkpoint where there is one, else of the data."""
        if self.saved_classes is not None:
            return self.saved_classes
        return self._dataset(self.config.data.train_split).classes

    @cached_property
    def class_count(self) -> int:
        wanted, found = self.config.model.classes, len(self.classes)
        if wanted not in (0, found):
            raise ConfigError(
                f"config.model.classes = {wanted}, but the class table has {found} classes "
                f"({', '.join(self.classes.names[:5])}, ...); leave it at 0"
            )
        return found

    def _dataset(self, split: str) -> Any:
        return open_split(self.config.data.folder, split)

    def _source(self, split: str, augmented: bool) -> DetectionSource:
        data, dataset = self.config.data, self._dataset(split)
        if dataset.classes.names != self.classes.names:
            raise ConfigError(
                f"{data.folder} has the classes {', '.join(dataset.classes.names[:8])}, but the "
                f"weights were trained for {', '.join(self.classes.names[:8])}; evaluate on data "
                "with the same classes"
            )
        config = self.config
        return DetectionSource(
            dataset, data, config.seed, config.batch_size, self._updates, augmented
        )

    @cached_property
    def _updates(self) -> int:
        """Of the whole run: phases are fractions of it."""
        examples = len(self._dataset(self.config.data.train_split))
        return self.config.total.resolve("total", self.config.batch_size, examples)

    @cached_property
    def _sources(self) -> Sources:
        data = self.config.data
        if self.augmented:  # the overfit test has a horizon of its own
            check_warmup(self.config, self._updates)
        validation = self._source(data.eval_split, False)
        return Sources(
            self._source(data.train_split, self.augmented), {data.eval_split: validation}
        )

    def sources(self) -> Sources:
        return self._sources

    def metadata(self) -> dict[str, Any]:
        return {"classes": list(self.classes.names), "source_ids": list(self.classes.source_ids)}

    def with_metadata(self, metadata: Mapping[str, Any]) -> Self:
        if metadata.get(remap.BACKBONE_ONLY):
            raise CheckpointError(
                "the work folder holds a backbone only; start a run from it by "
                "config.checkpoint.init_from"
            )
        table = ClassTable(tuple(metadata["classes"]), tuple(metadata["source_ids"]))
        return dataclasses.replace(self, saved_classes=table)

    @property
    def variants(self) -> tuple[Hashable, ...]:  # type: ignore[override]
        return variants_of(self.config.data) if self.augmented else (self.config.data.size,)

    def variant(self, step: int) -> Hashable:
        if not self.augmented or not self.config.data.scales:
            return self.config.data.size
        train = self.sources().train
        assert isinstance(train, DetectionSource)
        return train.shape_at(step)

    def as_variant(self, variant: Hashable) -> Self:
        return dataclasses.replace(self, canvas=variant)

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        return init(key, self.config.model, self.class_count)

    def optimizer_groups(self, params: PyTree) -> PyTree:
        backbone = self.config.model.backbone
        rules = [(r"backbone/stem/.*", FROZEN)] if backbone.freeze_stem else []
        return label_by_rules(params, [*rules, (r"backbone/.*", "backbone"), (r".*", "detector")])

    def averaged(self, params: PyTree, model_state: PyTree) -> PyTree:
        return {"params": params, "statistics": model_state}

    def saved_form(
        self,
        initial: Mapping[str, jax.Array],
        saved: Collection[str],
        facts: Mapping[str, Any],
    ) -> dict[str, Any]:
        return remap.saved_form(initial, saved, self.classes.names, facts)

    def inherited(
        self,
        restored: Mapping[str, Any],
        initial: Mapping[str, jax.Array],
        facts: Mapping[str, Any],
    ) -> tuple[dict[str, jax.Array], list[str]]:
        return remap.inherited(restored, initial, self.classes.names, facts)

    def describe(self) -> Description:
        height, width = self.canvas or self.config.data.size
        objects = self.config.data.max_objects
        return Description(
            parameter_counts(self.config.model, self.class_count),
            3.0 * flops(self.config.model, self.class_count, (height, width)),
            {
                "image": ((height, width, 3), "uint8"),
                "content": ((2,), "int32"),
                "boxes": ((objects, 4), "float32"),
                "labels": ((objects,), "int32"),
                "dropped": ((), "int32"),
            },
        )

    def loss(self, params: PyTree, context: Context, batch: Batch, key: jax.Array) -> LossOutput:
        config = self.config
        targets = Targets(cxcywh_norm(batch["boxes"]), batch["labels"])
        # By position in the stream: no draw depends on the mesh or on the micro-batches.
        keys = jax.vmap(lambda p: jax.random.fold_in(context.update_key, p))(batch["position"])
        queries = None
        if config.loss.denoising.slots:
            queries = make_queries(
                keys,
                targets,
                config.loss.denoising,
                self.class_count,
                config.model.decoder.queries,
            )
        content = batch["content"] if config.data.resize == "letterbox" else None
        output, statistics = detect(
            config.model,
            params,
            context.model_state,
            batch["image"],
            content,
            train=True,
            denoising=queries,
        )
        found = criterion(output, targets, queries, config.loss)
        dropped = batch["dropped"].astype(jnp.float32)
        metrics = found.metrics | {
            "dropped_objects": Total(dropped.sum(), jnp.float32(dropped.size))
        }
        return LossOutput(found.terms, statistics, jax.lax.stop_gradient(metrics))

    def tables(self) -> dict[str, Table]:
        return tables_of(self.config.data.folder)

    def guards(self) -> Guards:
        return Guards(
            names=guards.NAMES,
            start=lambda state, batch, resident: guards.of_start(
                self.config, self.class_count, batch
            ),
            watches=lambda _: guards.watches(self.config),
        )

    def evaluate(self, state: Any, source: Any, layout: Any) -> Evaluation:
        return evaluation.evaluate(self.config, self.classes, state, source, layout)

    def without_augmentation(self) -> Self:
        # The overfit test judges the weights themselves: their average remembers the start.
        scoring = dataclasses.replace(self.config.scoring, raw=True)
        config = dataclasses.replace(self.config, scoring=scoring)
        return dataclasses.replace(self, config=config, augmented=False)

    def overfit_verdict(self, before: Evaluation, after: Evaluation) -> Verdict:
        ap50, iou = after.metrics["AP50_raw"], after.metrics["matched_iou_raw"]
        sentence = (
            f"AP50 on the fixed examples rose from {before.metrics['AP50_raw']:.3f} to {ap50:.3f} "
            f"(needed {OVERFIT_AP50}), mean IoU of the matched boxes from "
            f"{before.metrics['matched_iou_raw']:.3f} to {iou:.3f} (needed {OVERFIT_IOU})"
        )
        return Verdict("overfit", ap50 >= OVERFIT_AP50 and iou >= OVERFIT_IOU, sentence)


def check_warmup(config: Config, total_updates: int) -> None:
    """Raises ConfigError where the warm-up takes more than `LONGEST_WARMUP` of the run."""
    warmup = longest_warmup(config.optimizer, total_updates)
    # A warm-up of one update is none.
    if warmup > max(LONGEST_WARMUP * total_updates, 1):
        raise ConfigError(
            f"the warm-up takes {warmup} of {total_updates} updates, more than "
            f"{LONGEST_WARMUP:.0%} of the run; set config.optimizer.schedule.warmup_fraction to "
            f"{LONGEST_WARMUP} or less and warmup_updates to None"
        )

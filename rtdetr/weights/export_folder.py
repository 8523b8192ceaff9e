"""`--format safetensors`: a folder that transformers opens.

It holds `model.safetensors`, `config.json` with the names of the classes, the preprocessing
(`preprocessor_config.json`) and a model card, `README.md`. The weights are the average where the
run keeps one.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import jax

from rtdetr.inference import best_weights
from rtdetr.weights.model_card import model_card
from rtdetr.weights.transformers_folder import write_folder
from training.checkpoint.store import CheckpointReader

if TYPE_CHECKING:
    from rtdetr.task import DetectorTask
    from training.program import Program
    from training.state import TrainState


def write(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes `args.output`; returns a line that says what is in it.

    Raises:
      ConfigError: the network has a setting that transformers lacks.
      InputError: the folder cannot be written.
    """
    task: DetectorTask = program.task  # type: ignore[assignment]
    config, weights = task.config, best_weights(state)
    trees = jax.device_get({"params": weights.params, "statistics": weights.statistics})
    metrics = CheckpointReader(args.workdir).describe(step).metrics
    command = (
        f"podvision export --workdir {args.workdir} --step {step} --format {args.format} "
        f"--output {args.output}"
    )
    card = model_card(config, task.classes, step, metrics, command)
    count = write_folder(args.output, trees, config.model, config.data, task.classes, card)
    kind = "last weights" if state.ema is None else "average"
    return [
        f"step {step}: {count} arrays ({kind}) and {len(task.classes)} classes written to "
        f"{args.output}; open it with AutoModelForObjectDetection.from_pretrained"
    ]

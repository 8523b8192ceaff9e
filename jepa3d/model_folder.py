"""A trained model as one folder, from which it is used without its run and without its data.

model.safetensors    target encoder (`encoder.*`) and predictor (`predictor.*`)
config.json          opens the weights with transformers' VJEPA2Model
preprocessing.json   how a file becomes what the encoder sees, and the model in our own words
README.md            the model card
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa3d.config import DataConfig, ModelConfig, PrepareSettings
from jepa3d.transformers_config import to_transformers
from jepa3d.vjepa2_weights import export_weights, import_weights
from training.errors import CheckpointError, InputError, PodvisionError
from training.typed import build
from training.weight_files import read_safetensors, write_safetensors

WEIGHTS, CONFIG, PREPROCESSING, CARD = (
    "model.safetensors",
    "config.json",
    "preprocessing.json",
    "README.md",
)


@dataclass(frozen=True)
class TrainedModel:
    """What embeds volumes.

    Attributes:
      model: sizes.
      data: of its settings `sigma_floor` counts.
      preparation: how files become records.
      encoder: parameters of the target encoder.
      step: of the run.
    """

    model: ModelConfig
    data: DataConfig
    preparation: PrepareSettings
    encoder: Any
    step: int


def preparation_of(stored: Mapping[str, Any]) -> PrepareSettings:
    """The settings of records as `settings.json` has them."""
    # A folder of mode resize has no window: null there.
    values = {name: value for name, value in {**stored, "workers": 0}.items() if value is not None}
    return build(PrepareSettings, values, "preparation")


def write(folder: Path, trained: TrainedModel, predictor: Any, card: str) -> int:
    """Writes the folder; returns how many numbers the weights are.

    Raises:
      ConfigError: transformers has no such model; nothing is written then.
      InputError: the folder cannot be written.
    """
    settings = to_transformers(trained.model)
    trees = {"encoder": trained.encoder, "predictor": predictor}
    tensors = export_weights(trees, trained.model)
    described = {
        "encoder": "target encoder: exponential moving average of the trained encoder",
        "predictor": "trained predictor",
        "step": str(trained.step),
        "format": "pt",  # transformers asks for it; it states the order of the axes only
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / WEIGHTS, tensors, described)
        _write_json(folder / CONFIG, settings)
        _write_json(folder / PREPROCESSING, _preprocessing(trained))
        (folder / CARD).write_text(card, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error})") from error
    return sum(tensor.size for tensor in tensors.values())


def read(folder: Path) -> TrainedModel:
    """The model of a folder that `write` made.

    Raises:
      InputError: no such folder, or a damaged one.
      CheckpointError: weights that are damaged or do not fit.
    """
    path = folder / PREPROCESSING
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        model = build(ModelConfig, stored["model"], "model")
        data = DataConfig(sigma_floor=float(stored["sigma_floor"]))
        preparation = preparation_of(stored["preparation"])
        step = int(stored["step"])
    except (OSError, ValueError, LookupError, TypeError, PodvisionError) as error:
        raise InputError(
            f"{path} cannot be used ({error}); export the model again with podvision export"
        ) from error
    if preparation.shape != model.volume or preparation.patch != model.patch:
        raise CheckpointError(
            f"{path} prepares volumes of {preparation.shape} for a model of {model.volume}; export "
            "the model again"
        )
    weights = import_weights(read_safetensors(folder / WEIGHTS), model)
    return TrainedModel(model, data, preparation, weights["encoder"], step)


def _preprocessing(trained: TrainedModel) -> dict[str, Any]:
    return {
        "system": "jepa3d",  # which program `podvision predict --model` asks
        "step": trained.step,
        "steps": [
            "resample to `preparation.shape` by `preparation.mode`, uint8 [frame, row, column]",
            "divide by 255",
            "subtract the mean of the voxels that the scan covers",
            "divide by their standard deviation, at least sigma_floor",
        ],
        "sigma_floor": trained.data.sigma_floor,
        "preparation": trained.preparation.record_fields,
        "model": dataclasses.asdict(trained.model),
    }


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

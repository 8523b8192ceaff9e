"""A folder that `AutoModelForObjectDetection.from_pretrained` of transformers opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr.config import DataConfig, ModelConfig
from rtdetr.data.dataset import ClassTable
from rtdetr.model.detector import IMAGENET_MEAN, IMAGENET_STD
from rtdetr.weights.exchange import to_tensors
from rtdetr.weights.foreign import CONFIG, PREPROCESSOR, TENSORS
from rtdetr.weights.transformers_config import to_transformers
from training.errors import InputError
from training.weight_files import write_safetensors

CARD = "README.md"


def write_folder(
    folder: Path,
    trees: Mapping[str, Any],
    model: ModelConfig,
    data: DataConfig,
    classes: ClassTable,
    card: str,
) -> int:
    """Writes weights, settings, preprocessing and the model card; returns the number of arrays.

    Args:
      trees: `{"params": ..., "statistics": ...}` on the host.

    Raises:
      ConfigError: a setting that transformers does not have; nothing is written then.
      InputError: the folder cannot be written.
    """
    settings, tensors = to_transformers(model, classes), to_tensors(trees, model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # `transformers` asks for a format; it states the order of the axes only.
        write_safetensors(folder / TENSORS, tensors, {"format": "pt"})
        _write_json(folder / CONFIG, settings)
        _write_json(folder / PREPROCESSOR, preprocessor(model, data))
        (folder / CARD).write_text(card, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error})") from error
    return len(tensors)


def preprocessor(model: ModelConfig, data: DataConfig) -> dict[str, Any]:
    """Settings of transformers' image processor: how an image becomes the canvas of training."""
    height, width = data.size
    letterbox = data.resize == "letterbox"
    size = {"height": height, "width": width}
    return {
        "image_processor_type": "RTDetrImageProcessor",
        "do_resize": True,
        "size": {"max_height": height, "max_width": width} if letterbox else size,
        "do_pad": letterbox,
        "pad_size": size if letterbox else None,
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": model.input_norm == "imagenet",
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")

"""A network of another program as it was found: settings, classes and arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtdetr.config import ModelConfig
from rtdetr.data.dataset import ClassTable
from rtdetr.data.prepared import open_classes
from rtdetr.model.detector import IMAGENET_MEAN, IMAGENET_STD
from rtdetr.weights import classifiers, shapes, spellings, transformers_config
from training.errors import ConfigError, InputError
from training.torch_file import read_torch_file, state_dict
from training.weight_files import read_safetensors

CONFIG, TENSORS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"


@dataclass(frozen=True)
class Foreign:
    """What was read.

    Attributes:
      tensors: under the names of `rtdetr.weights.names`.
      classes: None where the file names none.
      canvas: (height, width) px that images are resized to, where the file says it.
    """

    model: ModelConfig
    tensors: spellings.Tensors
    classes: ClassTable | None
    canvas: tuple[int, int] | None = None


def read_foreign(path: Path) -> Foreign:
    """A folder of transformers, or a `.pth` or `.safetensors` file of the authors or of timm.

    Raises:
      InputError: there is neither.
      CheckpointError, ConfigError: see the readers of each.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(f"--from {path} does not exist; give a folder of transformers or a .pth")
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path)
    else:
        tensors = state_dict(read_torch_file(path), path)
    if classifiers.is_classifier(list(tensors)):
        tensors = classifiers.from_classifier(tensors, str(path))
        model = replace(shapes.model_of(tensors, str(path)), input_norm="imagenet")
        return Foreign(model, tensors, None)
    if spellings.is_of_authors(list(tensors)):
        tensors = spellings.from_authors(tensors)
    else:
        tensors = spellings.from_transformers(tensors)
    return Foreign(shapes.model_of(tensors, str(path)), tensors, None)


def named_classes(path: Path) -> ClassTable:
    """The classes of prepared data, or of a text file with a name a line.

    Raises:
      InputError: no such place, or a name twice.
    """
    if path.is_dir():
        return open_classes(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--classes {path} cannot be read ({error}); check the path") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) < len(names):
        raise InputError(f"--classes {path} must hold different names, one a line; correct it")
    return ClassTable(names, tuple(range(len(names))))


def _folder(folder: Path) -> Foreign:
    values = _json(folder / CONFIG)
    model, classes = transformers_config.from_transformers(values, str(folder / CONFIG))
    tensors = spellings.from_transformers(read_safetensors(folder / TENSORS))
    canvas = None
    if (folder / PREPROCESSOR).exists():
        images = _json(folder / PREPROCESSOR)
        norm = _input_norm(images, folder / PREPROCESSOR)
        model, canvas = replace(model, input_norm=norm), _canvas(images)
    return Foreign(model, tensors, classes, canvas)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy the folder again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings; copy the folder again")
    return values


def _input_norm(images: Mapping[str, Any], path: Path) -> str:
    """How pixels become the network's input, as `ModelConfig.input_norm`."""
    scaled = images.get("do_rescale", True)
    factor = images.get("rescale_factor", 1 / 255)
    if not scaled or abs(factor * 255 - 1) > 1e-4:
        raise ConfigError(f"{path} does not divide pixels by 255, which is all that is known here")
    if not images.get("do_normalize", False):
        return "unit"
    found = (images.get("image_mean"), images.get("image_std"))
    if found != (list(IMAGENET_MEAN), list(IMAGENET_STD)):
        raise ConfigError(
            f"{path} standardizes pixels by {found[0]} and {found[1]}, and only those of ImageNet "
            "are known here; set do_normalize to false if the network was trained without"
        )
    return "imagenet"


def _canvas(images: Mapping[str, Any]) -> tuple[int, int] | None:
    size = images.get("size") or {}
    height, width = size.get("height", 0), size.get("width", 0)
    whole = height and width and not (height % 32 or width % 32)
    return (height, width) if whole else None

"""The sequence that a config names, with hand models and, where there is one, its ground truth."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hand_object.config import SYNTHETIC, SequenceConfig
from hand_object.data.array_file import read_arrays
from hand_object.data.axes import settle_axes
from hand_object.data.checks import check_sequence
from hand_object.data.finding import Finding, refuse_red
from hand_object.data.hold_build import read_hold_build
from hand_object.data.mesh_hands import register_meshes
from hand_object.data.recording import is_recording, read_recording
from hand_object.data.sequence import Sequence
from hand_object.hands.model import HandModel
from hand_object.hands.sources import EMBEDDED, load_hand
from hand_object.synthetic import DEVELOPMENT, make_sequence
from training.data_folder import data_folder
from training.errors import ConfigError

TRUTH = "ground_truth.npz"


@dataclass(frozen=True)
class Opened:
    """A sequence that passed the checks.

    Attributes:
      sequence: its pictures may be gone from the disk; use `frames`.
      hands: models by side.
      images: [T, H, W, 3] uint8.
      masks: [T, H, W] uint8 classes.
      truth: arrays of `ground_truth.npz`, empty where there is none.
    """

    sequence: Sequence
    hands: Mapping[str, HandModel]
    images: np.ndarray
    masks: np.ndarray
    truth: Mapping[str, np.ndarray]


def open_sequence(config: SequenceConfig) -> Opened:
    """Reads everything that the config names.

    Raises:
      ConfigError: no such folder, no hand model, or nothing to hold out.
      InputError: files are missing or damaged, or a check says that training cannot succeed.
    """
    if config.path == SYNTHETIC:
        with tempfile.TemporaryDirectory() as folder:
            make_sequence(replace(DEVELOPMENT, frames=48), Path(folder))
            return _opened(Path(folder), config)  # pixels are read at once, so the folder may go
    return _opened(sequence_folder(config.path), config)


def sequence_folder(path: str) -> Path:
    """As given, or under the folder that PODVISION_DATA names.

    Raises:
      ConfigError: it is in neither place.
    """
    return data_folder(
        path,
        "sequence.path",
        "give a HOLD build folder (image/, mask/, data.npy) or the one around it",
    )


@dataclass(frozen=True)
class Checked:
    """A sequence as it is trained on, whether or not it should be.

    Attributes:
      hands: models by side; none of a side whose model nothing names.
      findings: of all checks.
    """

    sequence: Sequence
    hands: Mapping[str, HandModel]
    findings: list[Finding]


def check_folder(folder: Path, config: SequenceConfig) -> Checked:
    """Reads and checks a sequence, its frames at their full size.

    Raises:
      ConfigError: a hand model is nowhere.
      InputError: files are missing or damaged.
    """
    sequence = read_sequence(folder, config.object)
    hands = {}
    for side, track in sequence.hands.items():
        path = _hand_path(config.hand, track.model, side, folder)
        if path is not None:
            hands[side] = load_hand(path, side)
    sequence, registered = register_meshes(sequence, hands)
    sequence, axes = settle_axes(sequence, hands, config.camera)
    return Checked(sequence, hands, [*registered, axes, *check_sequence(sequence, hands)])


def read_sequence(folder: Path, name: str | None = None) -> Sequence:
    """What a folder holds, whichever layout it has.

    Args:
      name: of the object, in recordings with several.

    Raises:
      ConfigError: there is no object of this name, or nothing to choose from.
      InputError: files are missing or damaged.
    """
    if is_recording(folder):
        return read_recording(folder, name)
    if name is not None:
        raise ConfigError(
            f"config.sequence.object = {name!r}, but {folder} is a HOLD build folder, which has "
            "one object; leave it out"
        )
    inside = [child.name for child in sorted(folder.glob("*")) if is_recording(child)]
    if inside and not (folder / "data.npy").is_file():
        raise ConfigError(
            f"{folder} is a recording of several cameras; name the folder of one of them: "
            f"{', '.join(inside)}"
        )
    return read_hold_build(folder)


def _opened(folder: Path, config: SequenceConfig) -> Opened:
    checked = check_folder(folder, config)
    for side in sorted(set(checked.sequence.hands) - set(checked.hands)):
        raise ConfigError(
            f"{folder} does not name the model of the {side} hand; set config.sequence.hand to an "
            f"embedded one ({', '.join(EMBEDDED)}), a MANO .pkl or an .npz"
        )
    if not config.force:
        refuse_red(checked.findings)
    sequence = checked.sequence
    if len(sequence) < config.hold_out:
        raise ConfigError(
            f"config.sequence.hold_out = {config.hold_out} leaves no frame of {len(sequence)} to "
            "evaluate on; lower it"
        )
    if config.longest is not None:
        sequence = sequence.resized(config.longest)
    frames = range(len(sequence))
    truth = folder / TRUTH
    return Opened(
        sequence,
        checked.hands,
        np.stack([sequence.image(frame) for frame in frames]),
        np.stack([sequence.mask(frame) for frame in frames]),
        read_arrays(truth) if truth.is_file() else {},
    )


def _hand_path(given: str | None, named: str | None, side: str, folder: Path) -> str | None:
    """The embedded name, or the path of a file: as given, beside the sequence, or in the data.

    None where nothing names it.
    """
    name = named if given is None else given.replace("{side}", side)
    if name is None:
        return None
    if name in EMBEDDED or Path(name).suffix in (".pkl", ".npz"):
        return name
    places = [folder, folder.parent / "hand_models"]
    root = os.environ.get("PODVISION_DATA")
    if root:
        places.append(Path(root) / "hand_object" / "hand_models")
    for place in places:
        if (place / f"{name}.npz").is_file():
            return str(place / f"{name}.npz")
    raise ConfigError(
        f"hand model {name!r} of {folder} is neither embedded ({', '.join(EMBEDDED)}) nor a file "
        f"{name}.npz in {' or '.join(map(str, places))}; set config.sequence.hand to its path"
    )

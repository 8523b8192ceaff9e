"""`podvision predict` of a V-JEPA3D run: embeddings of volumes by the target encoder.

Every input goes through the function that makes training records (`jepa3d.data.convert.convert`)
with the settings of the run's records, and then through the task's own normalization, so that the
encoder sees exactly what it saw in training without augmentation. The settings come from the
checkpoint: the records may be gone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa3d.config import PrepareSettings
from jepa3d.data.convert import Task as Conversion
from jepa3d.data.convert import convert
from jepa3d.data.inventory import InputItem, Inventory, take_inventory
from jepa3d.data.records import features
from jepa3d.data.volume import SkipReason
from training.errors import ConfigError, InputError
from training.typed import build

if TYPE_CHECKING:
    import jax

    from jepa3d.task import JepaTask
    from training.program import Program
    from training.state import TrainState

COLUMNS = ("volume", "foreground", "valid_box", "mean", "std")
DESCRIBED = (
    "path",
    "sha256",
    "scanner",
    "laterality",
    "shape",
    "spacing_mm",
    "grid_spacing_mm",
    "valid_fraction",
    "foreground_fraction",
    "notes",
)


@dataclass(frozen=True)
class Prepared:
    """An input as a training record: `example` has `COLUMNS`, `row` is its row of an index."""

    example: dict[str, np.ndarray]
    row: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--input",
        required=True,
        metavar="PATH",
        help="a volume (DICOM, .vol, .npy, .npz, a folder of B-scans) or a folder of volumes",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help=".npz file, or folder of them"
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raises InputError for a missing input, ConfigError where outputs would share one file."""
    source = Path(args.input)
    if not source.exists():
        raise InputError(f"--input {source} does not exist; give a volume or a folder of volumes")
    if source.is_dir() and args.output.suffix == ".npz":
        raise ConfigError(f"--input {source} is a folder; give a folder as --output as well")


def predict(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes one .npz for each volume; returns lines that say what was written and skipped.

    Raises:
      InputError: no input gave a volume.
    """
    task: JepaTask = program.task  # type: ignore[assignment]
    settings = settings_of_run(task)
    root, inventory = inputs(Path(args.input), args.output, settings)
    encoder = make_encoder(task)
    named = [named for named in inventory.named if named.reason != SkipReason.OTHER_FILE]
    lines = [f"skipped {named.path}: {named.reason.value}: {named.detail}" for named in named]
    written = 0
    for item in inventory.items:
        prepared = prepare_one(root, item, settings)
        if isinstance(prepared, str):
            lines.append(f"skipped {item.path}: {prepared}")
            continue
        tokens, pooled = encoder(state.ema, prepared.example)
        single = args.output.suffix == ".npz"
        target = args.output if single else args.output / f"{output_name(root, item)}.npz"
        write_embeddings(target, prepared, tokens, pooled, step)
        written += 1
    if not written:
        raise InputError("; ".join(lines) or f"{args.input} holds no volume")
    return [*lines, f"step {step}: embeddings of {written} volumes written to {args.output}"]


def settings_of_run(task: JepaTask) -> PrepareSettings:
    """How the records of the run were prepared."""
    stored = {**task.preparation, "workers": 0}
    # A folder of mode resize has no window: null there.
    values = {name: value for name, value in stored.items() if value is not None}
    return build(PrepareSettings, values, "settings.json")


def inputs(source: Path, output: Path, settings: PrepareSettings) -> tuple[Path, Inventory]:
    """The folder that paths are relative to, and what lies there, by the rules of `prepare`."""
    if source.is_dir():
        root = source.resolve()
        return root, take_inventory(root, output.resolve(), settings)
    return source.resolve().parent, Inventory([InputItem(source.name, "")])


def output_name(root: Path, item: InputItem) -> str:
    """Path of an output under the output folder, without its ending; unique for each input."""
    return root.name if item.path == "." else item.path


def prepare_one(root: Path, item: InputItem, settings: PrepareSettings) -> Prepared | str:
    """The record of an input as training would read it, or why there is none."""
    # Any split will do: it does not enter the record.
    outcome = convert(Conversion(root, item, "eval", settings))
    row = outcome.rows[0]
    if outcome.record is None:
        return f"{row['reason']}: {row['detail']}"
    record: Any = features(settings.shape, settings.patch).deserialize_example_np(outcome.record)
    example = {name: np.asarray(record[name]) for name in COLUMNS}
    return Prepared(example | {"foreground": example["foreground"].astype(bool)}, row)


def make_encoder(task: JepaTask):
    """A compiled function (encoder parameters, example) -> tokens [N, D] and their mean [D].

    The mean is over foreground tokens, as in evaluation; zeros where there is none.
    """
    import jax  # not above: the command line is parsed without it
    import jax.numpy as jnp

    from jepa3d.inputs import model_inputs
    from jepa3d.model.jepa import encode

    @jax.jit
    def embed(encoder: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        seen = model_inputs(batch, None, task.config)
        tokens = encode(task.config.model, encoder, seen.volumes)[0]
        share = seen.foreground_BxN[0].astype(jnp.float32)
        # A TPU multiplies float32 in bfloat16 unless told otherwise.
        total = jnp.einsum("nd,n->d", tokens, share, precision="highest")
        return tokens, total / jnp.maximum(jnp.sum(share), 1.0)

    def encoded(encoder: Any, example: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        batch = {name: np.asarray(value)[None] for name, value in example.items()}
        tokens, pooled = embed(encoder, batch)
        return np.asarray(tokens), np.asarray(pooled)

    return encoded


def write_embeddings(
    path: Path, prepared: Prepared, tokens: np.ndarray, pooled: np.ndarray, step: int
) -> None:
    """Writes tokens [N, D], pooled [D], foreground [N] bool and metadata (JSON text).

    Raises:
      InputError: the file cannot be written.
    """
    described = {name: prepared.row[name] for name in DESCRIBED}
    described |= {"step": step, "encoder": "target", "pooling": "mean over foreground tokens"}
    described["token_grid"] = list(prepared.example["foreground"].shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            tokens=tokens,
            pooled=pooled,
            foreground=prepared.example["foreground"].reshape(-1),
            metadata=np.array(json.dumps(described)),
        )
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from error

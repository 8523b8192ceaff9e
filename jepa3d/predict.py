"""`podvision predict` with V-JEPA3D: embeddings of volumes by the target encoder.

Every input goes through the function that makes training records (`jepa3d.data.convert.convert`)
with the settings of the run's records, and then through the task's own normalization, so that the
encoder sees exactly what it saw in training without augmentation. The model is a run's checkpoint
(`--workdir`) or a folder that `podvision export` wrote (`--model`); the records may be gone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jepa3d.config import Config, PrepareSettings
from jepa3d.embeddings import TABLES, Embedding, check_table, write_file, write_table
from training.errors import ConfigError, InputError

if TYPE_CHECKING:
    import jax

    from jepa3d.data.inventory import InputItem, Inventory
    from jepa3d.model_folder import TrainedModel
    from training.program import Program
    from training.state import TrainState

COLUMNS = ("volume", "foreground", "valid_box", "mean", "std")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--input",
        required=True,
        metavar="PATH",
        help="a volume (any format that podvision prepare jepa3d reads) or a folder of volumes",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="PATH",
        help="a table of all volumes (.parquet, .npz), or a folder with an .npz for each",
    )
    parser.add_argument(
        "--tokens", action="store_true", help="the tokens, too, not only their mean; into a folder"
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raises InputError for a missing input, ConfigError for outputs that cannot be."""
    source = Path(args.input)
    if not source.exists():
        raise InputError(f"--input {source} does not exist; give a volume or a folder of volumes")
    if args.output.suffix in TABLES:
        if args.tokens:
            raise ConfigError(
                f"--tokens are written a file for each volume; give a folder instead of --output "
                f"{args.output}"
            )
        check_table(args.output)
    elif args.output.is_file():
        raise ConfigError(
            f"--output {args.output} is a file; give a folder, or a table .parquet or .npz"
        )


def predict(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Embeds with the checkpoint of a run; see `embed_all`."""
    from jepa3d.export import trained_model

    return embed_all(trained_model(program.task, state, step), args)  # type: ignore[arg-type]


def predict_with_folder(folder: Path, args: argparse.Namespace) -> list[str]:
    """Embeds with an exported model; see `embed_all`."""
    from jepa3d import model_folder

    return embed_all(model_folder.read(folder), args)


def embed_all(trained: TrainedModel, args: argparse.Namespace) -> list[str]:
    """Writes the embeddings; returns lines that say what was written and skipped.

    Raises:
      InputError: no input gave a volume.
    """
    from jepa3d.data.volume import SkipReason

    root, inventory = inputs(Path(args.input), args.output, trained.preparation)
    embed = make_encoder(trained)
    named = [named for named in inventory.named if named.reason != SkipReason.OTHER_FILE]
    lines = [f"skipped {named.path}: {named.reason.value}: {named.detail}" for named in named]
    rows: list[Embedding] = []
    written = 0
    for item in inventory.items:
        prepared = prepare_one(root, item, trained.preparation)
        if isinstance(prepared, str):
            lines.append(f"skipped {item.path}: {prepared}")
            continue
        found = embed(*prepared)
        written += 1
        if args.output.suffix in TABLES:
            rows.append(found.without_tokens())
        else:
            target = args.output / f"{output_name(root, item)}.npz"
            write_file(target, found, trained.step, args.tokens)
    if not written:
        raise InputError("; ".join(lines) or f"{args.input} holds no volume")
    if rows:
        write_table(args.output, rows, trained.step)
    return [
        *lines,
        f"step {trained.step}: embeddings of {written} volumes written to {args.output}",
    ]


def inputs(source: Path, output: Path, settings: PrepareSettings) -> tuple[Path, Inventory]:
    """The folder that paths are relative to, and what lies there, by the rules of `prepare`."""
    from jepa3d.data.inventory import InputItem, Inventory, take_inventory

    if source.is_dir():
        root = source.resolve()
        return root, take_inventory(root, output.resolve(), settings)
    return source.resolve().parent, Inventory([InputItem(source.name, "")])


def output_name(root: Path, item: InputItem) -> str:
    """Path of an output under the output folder, without its ending; unique for each input."""
    return root.name if item.path == "." else item.path


def prepare_one(
    root: Path, item: InputItem, settings: PrepareSettings
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | str:
    """Record (`COLUMNS`) and index row of an input as training would have them, or why not."""
    from jepa3d.data.convert import Task, convert
    from jepa3d.data.decode import decode_record

    # Any split will do: it does not enter the record.
    outcome = convert(Task(root, item, "eval", settings))
    row = outcome.rows[0]
    if outcome.record is None:
        return f"{row['reason']}: {row['detail']}"
    record = decode_record(outcome.record, settings.shape, settings.patch)
    return {name: record[name] for name in COLUMNS}, row


def make_encoder(trained: TrainedModel):
    """A function (record, index row) -> `Embedding`, compiled once.

    Mean and deviation are over foreground tokens; zeros where there is none.
    """
    import jax  # not above: the command line is parsed without it
    import jax.numpy as jnp

    from jepa3d.inputs import model_inputs
    from jepa3d.model.jepa import encode

    config = Config(model=trained.model, data=trained.data)

    @jax.jit
    def embed(encoder: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, ...]:
        seen = model_inputs(batch, None, config)
        tokens = encode(config.model, encoder, seen.volumes)[0].astype(jnp.float32)
        share = seen.foreground_BxN[0].astype(jnp.float32)
        share = share / jnp.maximum(jnp.sum(share), 1.0)
        # A TPU multiplies float32 in bfloat16 unless told otherwise.
        mean = jnp.einsum("nd,n->d", tokens, share, precision="highest")
        square = jnp.einsum("nd,n->d", jnp.square(tokens - mean[None]), share, precision="highest")
        return mean, jnp.sqrt(square), tokens

    encoder = jax.device_put(trained.encoder)

    def embedded(record: dict[str, np.ndarray], row: dict[str, Any]) -> Embedding:
        batch = {name: np.asarray(value)[None] for name, value in record.items()}
        pooled, spread, tokens = map(np.asarray, embed(encoder, batch))
        return Embedding(row, pooled, spread, tokens, record["foreground"])

    return embedded

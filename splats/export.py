"""`podvision export` of a trained scene: its Gaussians as a file that viewers read.

The cloud is brought back to the data set's own world (means, sizes, orientations and harmonics),
unless the normalized world of training is asked for. Harmonics above the degree in use at the step
are never rendered and not written.
"""

from __future__ import annotations

import argparse
import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splats.formats import FORMATS, CleanedCloud, GaussianCloud, clean, transform
from splats.formats.spz import check_version, write_spz
from training.errors import ConfigError, InputError

if TYPE_CHECKING:
    from splats.task import SplatTask
    from training.program import Program
    from training.state import TrainState

NAMES = tuple(suffix.removeprefix(".") for suffix in FORMATS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("--format", metavar="NAME", help=f"{', '.join(NAMES)} (as --output ends)")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write")
    parser.add_argument(
        "--normalized", action="store_true", help="keep the normalized world of training"
    )
    parser.add_argument(
        "--spz-version", type=int, default=3, metavar="3|4", help="of an .spz file (3)"
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Finds the format, before anything is loaded; sets `args.format` where it is None.

    Raises:
      ConfigError: an unknown format, or an output whose ending says another one.
      InputError: a version of .spz that needs a package which is not installed.
    """
    name = args.output.name.lower()
    implied = next((known for known in NAMES if name.endswith(f".{known}")), None)
    wanted = args.format or implied
    if wanted not in NAMES:
        found = repr(args.format) if args.format else f"the ending of {args.output}"
        raise ConfigError(f"{found} is no format of splats; use {', '.join(NAMES)}")
    if implied != wanted:
        raise ConfigError(
            f"--format {wanted} needs an --output that ends in .{wanted}, not {args.output.name}"
        )
    if wanted == "spz":
        check_version(args.spz_version)
    elif args.spz_version != 3:
        raise ConfigError(f"--spz-version is for .spz files, not for .{wanted}; leave it out")
    args.format = wanted


def export(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes `args.output`; returns lines that say what was written and what was left out."""
    cleaned = trained_cloud(program.task, state, args.normalized)  # type: ignore[arg-type]
    if not len(cleaned.cloud):
        raise InputError(f"no Gaussian of step {step} is alive and finite; nothing was written")
    write_file(args.output, cleaned.cloud, args.format, args.spz_version)
    world = "the normalized world" if args.normalized else "the world of the data set"
    megabytes = args.output.stat().st_size / 1e6
    lines = [
        f"step {step}: {len(cleaned.cloud):,} Gaussians of degree {cleaned.cloud.degree} in "
        f"{world} written to {args.output} ({megabytes:.2f} MB)",
        f"left out: {cleaned.dead:,} free slots, {cleaned.non_finite:,} Gaussians not finite",
    ]
    # The distance between neighboring float32 numbers at the farthest mean.
    step_width = float(np.spacing(np.abs(cleaned.cloud.means).max()))
    if step_width > 0.1 * float(np.exp(np.median(cleaned.cloud.log_scales))):
        lines.append(
            f"positions are rounded to {step_width:g} units, more than a tenth of a Gaussian: this "
            "world lies too far from its origin for float32; --normalized keeps them exact"
        )
    if args.format == "splat" and cleaned.cloud.degree:
        lines.append("this format holds no harmonics: colors do not depend on the direction")
    return lines


def write_file(path: Path, cloud: GaussianCloud, name: str, spz_version: int = 3) -> None:
    """Writes a cloud in the named format, complete or not at all.

    Raises:
      InputError: the file cannot be written.
    """
    unfinished = path.with_name(f".partial-{path.name}")
    write = partial(write_spz, version=spz_version) if name == "spz" else FORMATS[f".{name}"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished, cloud)
        unfinished.replace(path)
    except OSError as error:
        # What is reported is why the file could not be written, not a failure to clean up.
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from error


def trained_cloud(task: SplatTask, state: TrainState, normalized: bool = False) -> CleanedCloud:
    """The living Gaussians of a state.

    Args:
      normalized: keep the world of training instead of that of the data set.
    """
    import jax  # not above: the command line is parsed without it

    arrays = jax.device_get(state.params["gaussians"])
    degree = int(task.active_degree(state.applied))
    harmonics = arrays["sh0"]
    if "shN" in arrays:
        harmonics = np.concatenate([harmonics, arrays["shN"]], axis=1)
    cloud = GaussianCloud.of(
        arrays["means"],
        arrays["scales"],
        arrays["quats"],
        arrays["opacities"],
        harmonics[:, : (degree + 1) ** 2],
    )
    cleaned = clean(cloud, jax.device_get(state.model_state.alive))
    if normalized:
        return cleaned
    moved = transform(cleaned.cloud, np.linalg.inv(task.facts.normalization))
    return CleanedCloud(moved, cleaned.dead, cleaned.non_finite)

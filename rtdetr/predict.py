"""`podvision predict` of a detector: images, folders and videos to boxes, drawn and as JSON.

Into the output folder go
* `detections.json`, COCO results: `image_id`, `category_id` (as in the data), `bbox` (left,
  top, width, height in px), `score`, and the names `image` and `category`. All of the best `--top`
  detections are written, because a cut by score would lower the AP that is computed from them;
* `images.json`, the images with their ids, and the classes, in COCO's form;
* `drawn/`, the images, or the video, with the boxes of at least `--threshold`.

The way from pixels to boxes is that of evaluation (`rtdetr.inference`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rtdetr.config import Config
    from rtdetr.task import DetectorTask
    from rtdetr.tiles import Tiling
    from training.program import Program
    from training.state import TrainState

BATCH = 8  # images at a time, where there are so many
THRESHOLD = 0.5  # where the run has not been evaluated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--input", required=True, type=Path, metavar="PATH", help="image, folder, or video"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="new folder")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="least score of drawn boxes (default: the best one of the last evaluation)",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=0.0,
        metavar="SCORE",
        help="least score in detections.json (default: 0, all that AP is computed from)",
    )
    parser.add_argument("--top", type=int, metavar="N", help="detections of an image")
    parser.add_argument("--layers", type=int, metavar="N", help="decoder layers to use; 1 to all")
    parser.add_argument("--queries", type=int, metavar="N", help="queries; any number")
    parser.add_argument(
        "--tile", type=int, metavar="PX", help="also look at square tiles of this side"
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of a tile, in common with its neighbors; no less than the small objects (0.2)",
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="COCO file that gives ids to the images"
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raises InputError for a missing input, ConfigError for numbers that cannot be."""
    if not args.input.exists():
        raise InputError(f"--input {args.input} does not exist; give an image, folder or video")
    for name in ("threshold", "keep"):
        value = getattr(args, name)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"--{name} {value} is no probability; give a number from 0 to 1")
    for name in ("top", "layers", "queries"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: give 1 or more")
    tiling_of(args)
    if args.output.is_file():
        raise ConfigError(f"--output {args.output} is a file; give a folder")


def tiling_of(args: argparse.Namespace) -> Tiling | None:
    """How pictures are cut; None without `--tile`. Raises ConfigError for impossible numbers."""
    if args.tile is None:
        return None
    from rtdetr.tiles import Tiling

    return Tiling(args.tile, args.overlap)


def predict(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Detects on every image; returns lines that say what was written and left out.

    Raises:
      InputError: no image could be read.
      ConfigError: more decoder layers than there are.
    """
    from rtdetr.inference import best_weights, detect_frames
    from rtdetr.pictures_in import Images, open_input
    from rtdetr.predictions import Drawings, Results
    from rtdetr.tiles import joined, tiles_of

    task: DetectorTask = program.task  # type: ignore[assignment]
    config = with_dials(task.config, args)
    source = open_input(args.input, args.output, args.annotations)
    threshold, origin = drawn_from(args, step)
    tiling = tiling_of(args)
    batch_size = BATCH
    if isinstance(source, Images) and tiling is None:
        batch_size = min(BATCH, len(source))
    skipped: list[str] = []
    found_any = False
    try:
        with (
            Results(args.output, task.classes, args.keep) as results,
            Drawings(args.output / "drawn", task.classes, threshold, source) as drawings,
        ):
            frames = tiles_of(source, tiling) if tiling else source
            detected = detect_frames(
                config, best_weights(state), frames, program.layout, batch_size, skipped.append
            )
            if tiling:
                detected = joined(detected, config.scoring.detections)
            for frame, found in detected:
                results.add(frame, found)
                drawings.add(frame, found)
                found_any = True
    except OSError as error:
        raise InputError(f"{args.output} cannot be written ({error.strerror or error})") from error
    lines = [f"skipped: {reason}" for reason in skipped]
    if not found_any:
        raise InputError("; ".join(lines) or f"{args.input} holds no frame")
    lines += notes(source, results.images)
    if skipped:
        lines.append(f"{len(skipped)} of {len(skipped) + results.images} images were skipped")
    return [
        *lines,
        f"step {step}: {results.count} detections on {results.images} images written to "
        f"{args.output}; drawn from a score of {threshold:.2f} ({origin})",
    ]


def with_dials(config: Config, args: argparse.Namespace) -> Config:
    """The config with the arguments' numbers of detections, layers and queries."""
    from dataclasses import replace

    layers = config.model.decoder.layers
    if (args.layers or 0) > layers:
        raise ConfigError(f"--layers {args.layers}: this network has {layers} decoder layers")
    scoring = config.scoring
    scoring = replace(
        scoring,
        detections=args.top or scoring.detections,
        layers=args.layers or scoring.layers,
        queries=args.queries or scoring.queries,
    )
    return replace(config, scoring=scoring)


def drawn_from(args: argparse.Namespace, step: int) -> tuple[float, str]:
    """The least score of drawn boxes, and where it comes from."""
    from training.evaluation import read_evaluations

    if args.threshold is not None:
        return args.threshold, "--threshold"
    evaluations = read_evaluations(args.workdir, step)
    if evaluations and "threshold" in evaluations[-1]:
        return float(evaluations[-1]["threshold"]), "the best F1 of the last evaluation"
    return THRESHOLD, "the default; an evaluation of the run finds a better one"


def notes(source: object, read: int) -> list[str]:
    """What else of the input was not read."""
    from rtdetr.pictures_in import Images, Video

    if isinstance(source, Images) and source.others:
        return [f"{source.others} files without an image's ending were left out"]
    if isinstance(source, Video) and read < source.promised:
        return [f"the video promises {source.promised} frames, of which {read} could be read"]
    return []

"""`podvision prepare rtdetr`: a data set of images with boxes to one indexed form.

Reads COCO, YOLO, Pascal VOC and Roboflow's exports of them, and data sets that tensorflow-datasets
has downloaded. Prints what the dataset doctor found; see docs/rtdetr.md.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from training.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from etils import epath


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments; imports nothing heavy."""
    parser.add_argument("--input", help="folder of the data set, or one JSON file of COCO's form")
    parser.add_argument("--tfds", metavar="NAME", help="coco/2017, bccd, ... instead of --input")
    parser.add_argument("--data-dir", help="folder of tensorflow-datasets")
    parser.add_argument("--output", help="folder of the prepared data, on a disk or gs://...")
    parser.add_argument("--format", choices=("auto", "coco", "yolo", "voc"), default="auto")
    parser.add_argument(
        "--classes",
        metavar="A,B=C,D=E+F",
        help="keep A, C as B, and E with F as D (or a file, one a line); others are left out",
    )
    parser.add_argument("--check", action="store_true", help="tell what is found, write nothing")
    parser.add_argument(
        "--eval-fraction", type=float, default=0.1, help="for validation, where there is none (0.1)"
    )
    parser.add_argument(
        "--max-bad-fraction", type=float, default=0.01, help="of unusable images, objects (0.01)"
    )
    parser.add_argument(
        "--allow-overlap", action="store_true", help="an image may be in two splits"
    )
    parser.add_argument(
        "--drop-unannotated", action="store_true", help="leave images without objects out"
    )
    parser.add_argument("--images-per-shard", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 32))


def run(args: argparse.Namespace) -> int:
    """Prepares or checks the data set.

    Raises:
      PodvisionError: `DataFault` above the threshold, `InputError` or `ConfigError` otherwise.
    """
    from pathlib import Path

    from rtdetr.data.class_choice import entries_of
    from rtdetr.data.preparation import PrepareSettings, prepare, read_source
    from training import storage
    from training.folder_lock import held

    if bool(args.input) == bool(args.tfds):
        raise ConfigError("give either --input DIR or --tfds NAME")
    if not args.check and not args.output:
        raise ConfigError("give --output DIR, or --check to write nothing")
    for name in ("eval_fraction", "max_bad_fraction"):
        if not 0 <= getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be from 0 to below 1")
    settings = PrepareSettings(
        args.format,
        args.eval_fraction,
        args.max_bad_fraction,
        args.allow_overlap,
        args.drop_unannotated,
        max(1, args.images_per_shard),
        max(1, args.workers),
        entries_of(args.classes) if args.classes is not None else (),
    )
    if args.tfds:
        from rtdetr.data.readers import tensorflow_datasets

        source, splits = args.tfds, tensorflow_datasets.read(args.tfds, args.data_dir)
    else:
        form, splits = read_source(Path(args.input), args.format)
        source = f"{form} {args.input}"
    if args.check:
        prepare(splits, source, None, settings, print)
        return EXIT_DONE
    output = storage.absolute(args.output)
    with (
        held(storage.make_folder(output)),
        storage.explained(output, "give the same command again"),
    ):
        _require_new(output)
        prepare(splits, source, output, settings, print)
    print(f"prepared: {args.output}")
    return EXIT_DONE


def _require_new(output: epath.Path) -> None:
    from rtdetr.data.prepared import INDEX
    from training.errors import InputError

    if (output / INDEX).exists():
        raise InputError(
            f"{output} holds a prepared data set already; name another --output, or delete it first"
        )

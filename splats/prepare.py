"""`podvision prepare splats --input DIR [--output CACHE]`: check a scene and fill its image cache.

Prints one table: what was found, what is missing, how views are split, how large the scene is.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splats.data.scene import Scene
    from training.verdict import Table

_LISTED = 5  # names printed of a long list


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to `parser`."""
    parser.add_argument("--input", required=True, help="folder of the scene")
    parser.add_argument("--output", help="cache folder for undistorted and shrunk images")
    parser.add_argument("--images", default="images", help="image folder of a COLMAP scene")
    parser.add_argument("--factor", type=int, help="shrink images by this number")
    parser.add_argument("--kind", choices=["colmap", "nerfstudio", "blender"])
    parser.add_argument("--sparse", help="folder of the COLMAP model, where there are several")
    parser.add_argument("--masks", default="masks", help="folder of NAME.png masks, black ignored")
    parser.add_argument("--alpha", choices=["mask", "background"], help="transparent pixels")
    parser.add_argument("--no-normalize", action="store_true", help="keep the data set's world")
    split = parser.add_argument_group("held-out views")
    split.add_argument("--split", default="auto", choices=["auto", "every_k", "fraction", "file"])
    split.add_argument("--every", type=int, default=8, help="every_k: hold out every k-th view")
    split.add_argument("--fraction", type=float, default=0.8, help="fraction: training share")
    split.add_argument("--seed", type=int, default=0, help="fraction: seed of the choice")
    split.add_argument("--split-file", help="file: JSON lists or one test name a line")


def run(args: argparse.Namespace) -> int:
    """Loads the scene, which makes the cache, and prints the table; returns the exit code 0."""
    from splats.data.scene import load_scene
    from splats.data.splits import SplitConfig
    from training.typed import build

    choice = {"mode": args.split, "every": args.every, "fraction": args.fraction}
    choice |= {"seed": args.seed, "path": args.split_file}
    split = build(SplitConfig, choice, "split")
    scene = load_scene(
        args.input,
        images=args.images,
        factor=args.factor,
        split=split,
        normalize=not args.no_normalize,
        masks=args.masks,
        alpha=args.alpha,
        cache=args.output,
        kind=args.kind,
        sparse=args.sparse,
    )
    rows = describe(scene, args.output)
    width = max(len(label) for label, _ in rows)
    print("\n".join(f"{label.ljust(width)}  {value}" for label, value in rows))
    return 0


def scene_table(scene: Scene) -> Table:
    """The same for the report of a run."""
    from training.verdict import Table

    return Table("Scene", ("what", "found"), [*describe(scene)])


def describe(scene: Scene, cache: str | None = None) -> list[tuple[str, str]]:
    """The rows of the table: (label, value)."""
    report = scene.report
    sizes = sorted({(int(width), int(height)) for width, height in scene.sizes})
    size = ", ".join(f"{width} x {height}" for width, height in sizes[:_LISTED])
    if len(sizes) > _LISTED:
        size += f" and {len(sizes) - _LISTED} more"
    counted = "all" if scene.valid is None else f"{scene.valid.mean():.2%}"
    clear = "nothing" if scene.alpha is None else f"{1 - scene.alpha.mean() / 255:.2%}"
    split = f"{len(scene.train)} train, {len(scene.test)} test ({scene.split.mode})"
    rows = [
        ("data set", report.kind),
        *(("camera", camera) for camera in report.cameras),
        ("views", f"{report.listed} listed, {len(scene.names)} with an image"),
        ("sizes", size),
        ("pixels compared", counted),
        ("transparent", clear),
        ("points", f"{len(scene.points):,}"),
        ("split", split),
        ("test views", _shortened(scene.split.test)),
        ("scene scale", f"{scene.scene_scale:.4f}"),
        ("memory of images", f"{scene.images.nbytes / 1e6:.1f} MB"),
        ("fingerprint", scene.fingerprint),
    ]
    if report.missing:
        rows.append(("missing images", f"{len(report.missing)}: {_shortened(report.missing)}"))
    if report.ignored:
        rows.append(("without a view", f"{len(report.ignored)}: {_shortened(report.ignored)}"))
    rows += [("note", note) for note in report.notes]
    if not len(scene.points):
        advice = "--config.model.initialization=random"
        rows.append(("note", f"no sparse points: train with {advice}"))
    if cache:
        rows.append(("cache", cache))
    return rows


def _shortened(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

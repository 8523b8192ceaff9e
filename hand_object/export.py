"""`podvision export` of a hand-object scene, in the format that another program reads.

| format | what |
|---|---|
| `html` | one offline page: the animated hand and object to turn, over the input frames |
| `glb` | animated binary glTF: a skinned hand and a rigid object |
| `ply`, `obj` | a folder of meshes with colors: object, hand at rest, and with --posed each frame |
| `npz` | named arrays: joints, meshes, poses and cameras of each frame |
| `txt` | figures against ground truth beside published ones, with protocols; where there is truth |
| `png` | four overlays above the contact of the sequence, from both sides |
| `mp4` | input, overlay and a turning view side by side (needs podvision[video]) |

Meters, in the world of the sequence with its origin at the center of the bounding sphere.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hand_object.resolution import add_resolution, check_resolution
from training.errors import ConfigError, InputError

if TYPE_CHECKING:
    from hand_object.reconstruction import Reconstruction
    from hand_object.task import HandObjectTask
    from training.program import Program
    from training.state import TrainState

FILES, FOLDERS = ("html", "glb", "npz", "mp4", "png", "txt"), ("ply", "obj")
DEFAULT = "html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    formats = (*FILES, *FOLDERS)
    parser.add_argument(
        "--format", choices=formats, default=DEFAULT, help=f"what is written ({DEFAULT})"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help="file; a folder of ply and obj"
    )
    add_resolution(parser, 128)
    parser.add_argument(
        "--rate", type=float, default=30.0, metavar="HZ", help="frames a second of the video (30)"
    )
    parser.add_argument(
        "--protocol",
        choices=("surface", "vertices"),
        default="surface",
        help="what stands for a surface in figures: points even by area, or vertices as in HOLD",
    )
    parser.add_argument(
        "--posed", action="store_true", help="ply and obj: the meshes of every frame as well"
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for numbers out of range and outputs that do not go with the format."""
    check_resolution(args)
    if not 0 < args.rate <= 1000:
        raise ConfigError(f"--rate {args.rate:g}: give frames a second above 0, up to 1000")
    if args.format in FOLDERS and args.output.is_file():
        raise ConfigError(f"--output {args.output} is a file; {args.format} needs a folder")
    if args.format in FILES:
        if args.output.suffix.lower() != f".{args.format}":
            raise ConfigError(
                f"--format {args.format} needs an --output that ends in .{args.format}, not "
                f"{args.output.name}"
            )
        if args.posed:
            raise ConfigError(
                f"--posed does not go with --format {args.format}, which has every frame anyway; "
                f"leave it out, or choose {' or '.join(FOLDERS)}"
            )
    if args.format == "mp4":
        from training.video import require_encoder

        require_encoder()


def export(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes `args.output`; returns lines that say what is in it."""
    from hand_object.metrics.scores import scores
    from hand_object.trained_scene import trained_scene, true_scene

    task: HandObjectTask = program.task  # type: ignore[assignment]
    found = replace(trained_scene(task, state.params, args.resolution), rate=args.rate)
    if args.format in FOLDERS:
        lines = write_meshes(args.output, found, args.format, args.posed)
    else:
        truth = true_scene(task.opened)
        if truth is None and args.format == "txt":
            raise InputError(
                f"{found.name} has no ground truth of one hand and an object to compare with; "
                "choose another --format"
            )
        figures = (
            {}
            if truth is None or args.format not in ("txt", "html")
            else scores(found, replace(truth, rate=args.rate), args.protocol)
        )
        facts = Facts(task.opened.images, figures, args.protocol)
        lines = write_file(args.output, found, args.format, facts)
    return [f"step {step}: {_sizes(found)}", *lines]


@dataclass(frozen=True)
class Facts:
    """What is told with a scene.

    Attributes:
      images: [T, H, W, 3] uint8 input frames, None: none are shown.
      figures: of `metrics.scores`, empty without truth.
      protocol: of the figures.
    """

    images: np.ndarray | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    protocol: str = "surface"


def write_file(path: Path, found: Reconstruction, name: str, facts: Facts) -> list[str]:
    """Writes one of FILES, complete or not at all.

    Raises:
      InputError: the file cannot be written.
    """
    unfinished = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        said = _WRITERS[name](unfinished, found, facts)
        unfinished.replace(path)
    except OSError as error:
        # What is reported is why the file could not be written, not a failure to clean up.
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from error
    return [f"{path} ({path.stat().st_size / 1e6:.2f} MB){said}"]


def write_meshes(folder: Path, found: Reconstruction, name: str, posed: bool) -> list[str]:
    """The object in its own frame and hands at rest; with `posed` all parts of each frame too.

    Raises:
      InputError: the folder cannot be written.
    """
    from hand_object.formats.mesh_files import MESH_FORMATS

    write = MESH_FORMATS[name]
    written = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rest = {f"{side}_rest": hand.mesh for side, hand in found.hands.items()}
        if found.object is not None:
            rest["object"] = found.object.mesh
        for part, mesh in rest.items():
            write(folder / f"{part}.{name}", mesh)
            written += 1
        for frame in range(len(found) if posed else 0):
            for part, (vertices, mesh) in found.parts(frame).items():
                target = folder / "posed" / f"{part}_{frame:04d}.{name}"
                target.parent.mkdir(exist_ok=True)
                write(target, replace(mesh, vertices=vertices))
                written += 1
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error})") from error
    return [f"{folder}: {written} meshes"]


def _html(path: Path, found: Reconstruction, facts: Facts) -> str:
    from hand_object.metrics.contact_heat import contact_heat
    from hand_object.metrics.scores import UNITS
    from hand_object.viewer.page import page

    image = None if facts.images is None else facts.images.__getitem__
    told = {name: f"{value:.2f} {UNITS.get(name, '')}" for name, value in facts.figures.items()}
    if told:
        told["protocol"] = facts.protocol
    path.write_text(page(found, contact_heat(found), image, told), encoding="utf-8")
    return ""


def _txt(path: Path, found: Reconstruction, facts: Facts) -> str:
    from hand_object.anchors import table
    from hand_object.metrics.scores import UNITS

    lines = table(facts.figures, facts.protocol, f"{found.name}, {len(found)} frames")
    lines += "\n\n" + "\n".join(
        f"{name} {value:.4g} {UNITS.get(name, '')}".rstrip()
        for name, value in sorted(facts.figures.items())
    )
    path.write_text(lines + "\n", encoding="utf-8")
    return f"\n{lines}"


def _glb(path: Path, found: Reconstruction, facts: Facts) -> str:
    from hand_object.formats.glb import INFLUENCES, skinning_error, write_glb

    write_glb(path, found)
    errors = [skinning_error(hand) for hand in found.hands.values()]
    if not errors:
        return ""
    return (
        f"; {INFLUENCES} joints a vertex, which moves vertices by up to {1000 * max(errors):.2f} mm"
    )


def _npz(path: Path, found: Reconstruction, facts: Facts) -> str:
    from hand_object.formats.trajectories import write_npz

    write_npz(path, found)
    return ""


def _png(path: Path, found: Reconstruction, facts: Facts) -> str:
    from PIL import Image

    from hand_object.metrics.contact_heat import contact_heat
    from hand_object.pictures import sheet

    images = facts.images
    if images is None:
        images = np.zeros((len(found), *found.size, 3), np.uint8)
    Image.fromarray(sheet(found, contact_heat(found), images)).save(path, "PNG")
    return ""


def _mp4(path: Path, found: Reconstruction, facts: Facts) -> str:
    from hand_object.pictures import side_by_side
    from training.video import open_video

    frames = (side_by_side(found, f, None if facts.images is None else facts.images[f])
              for f in range(len(found)))  # fmt: skip
    first = next(frames)
    with open_video(path, first.shape[1], first.shape[0], found.rate) as add:
        add(first)
        for frame in frames:
            add(frame)
    return ""


_WRITERS: dict[str, Callable[[Path, Reconstruction, Facts], str]] = {
    "html": _html,
    "glb": _glb,
    "npz": _npz,
    "mp4": _mp4,
    "png": _png,
    "txt": _txt,
}


def _sizes(found: Reconstruction) -> str:
    meshes = {f"{side} hand": hand.mesh for side, hand in found.hands.items()}
    if found.object is not None:
        meshes["object"] = found.object.mesh
    parts = [f"{name} of {len(mesh.faces):,} triangles" for name, mesh in meshes.items()]
    return f"{' and '.join(parts)} in {len(found)} frames of {found.name}"

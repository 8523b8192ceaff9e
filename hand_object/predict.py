"""`podvision predict` of a hand-object scene: renderings and posed meshes of frames of its video.

For each frame FRAME of `--frames`, the output folder gets `FRAME.png` (input, rendering, and which
node is seen where, side by side) and `FRAME_NODE.ply`, the mesh of each node that is there, posed,
in meters of the world of the sequence. Frames that were held out have the poses of `held_out`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hand_object.resolution import add_resolution, check_resolution
from training.errors import ConfigError, InputError

if TYPE_CHECKING:
    from hand_object.task import HandObjectTask
    from training.program import Program
    from training.state import TrainState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--input",
        required=True,
        metavar="PATH",
        help="the sequence that was trained on, or a copy; `synthetic` of a made one",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of pictures and meshes"
    )
    parser.add_argument(
        "--frames", metavar="A:B", help="numbers of the frames, from A up to B - 1 (all)"
    )
    add_resolution(parser, 96)


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for arguments that cannot be meant."""
    if args.frames is not None:
        frame_range(args.frames)
    check_resolution(args)
    if args.output.is_file():
        raise ConfigError(f"--output {args.output} is a file; give a folder")


def frame_range(text: str) -> tuple[int, int]:
    """The two numbers of A:B.

    Raises:
      ConfigError: it is something else, or has no frame.
    """
    first, _, last = text.partition(":")
    numbers = [int(word) for word in (first, last) if word.isascii() and word.isdigit()]
    if len(numbers) != 2 or numbers[0] >= numbers[1]:
        raise ConfigError(f"--frames {text}: write A:B with whole numbers, A below B, such as 0:10")
    return numbers[0], numbers[1]


def predict(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes the frames to `args.output`; returns a line that says what."""
    from hand_object.formats.mesh_files import write_ply
    from hand_object.trained_scene import trained_scene

    task: HandObjectTask = program.task  # type: ignore[assignment]
    refuse_another_sequence(task, args.input)
    frames = chosen_frames(args.frames, len(task.opened.sequence))
    found = trained_scene(task, state.params, args.resolution)
    pictures = rendered(program, state, frames)
    meshes = 0
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        for frame, picture in zip(frames, pictures, strict=True):
            _write_picture(args.output / f"{frame:04d}.png", picture)
            for part, (vertices, mesh) in found.parts(frame).items():
                write_ply(args.output / f"{frame:04d}_{part}.ply", replace(mesh, vertices=vertices))
                meshes += 1
    except OSError as error:
        raise InputError(f"{args.output} cannot be written ({error.strerror or error})") from error
    return [f"step {step}: {len(frames)} renderings and {meshes} posed meshes in {args.output}"]


def chosen_frames(text: str | None, count: int) -> list[int]:
    """Numbers of frames of a sequence of `count`.

    Raises:
      ConfigError: the sequence has fewer.
    """
    first, last = (0, count) if text is None else frame_range(text)
    if last > count:
        raise ConfigError(f"--frames {text}: the sequence has {count} frames, 0:{count}")
    return list(range(first, last))


def refuse_another_sequence(task: HandObjectTask, path: str) -> None:
    """A scene is of one video: fields and poses say nothing about another one.

    Raises:
      InputError: pictures, masks or poses at the path are not those that were trained on.
    """
    from hand_object.config import SYNTHETIC
    from hand_object.data.frames import content_of
    from hand_object.data.sequence_access import open_sequence

    trained = task.config.sequence
    if path == trained.path or (Path(path).is_dir() and Path(trained.path).is_dir()
                                and Path(path).samefile(trained.path)):  # fmt: skip
        return
    other = open_sequence(replace(trained, path=path))
    if content_of(other) != content_of(task.opened):
        made = " (a made one)" if trained.path == SYNTHETIC else ""
        raise InputError(
            f"--input {path} is not the sequence that the run was trained on, {trained.path}{made}"
            "; a scene is of one video: train on this one"
        )


def rendered(program: Program, state: TrainState, frames: list[int]) -> list[np.ndarray]:
    """Input, rendering and nodes of each frame, uint8 [H, 3 W, 3]."""
    import jax

    from hand_object.evaluation import RenderFrames, comparison
    from hand_object.held_out import followed_params

    task: HandObjectTask = program.task  # type: ignore[assignment]
    opened = task.opened
    params = followed_params(jax.device_get(state.params), task.start_poses, task.held_out)
    render = jax.jit(RenderFrames(task.config.model, opened.sequence.size).__call__)
    arguments = program.layout.replicate((params, task.rendering_arrays()))
    pictures = []
    for frame in frames:
        batch = {"frame": np.array([frame], np.int32)}
        local = render(arguments[0], state.model_state["caches"], arguments[1], batch).local
        color, seen = (np.asarray(jax.device_get(part))[0] for part in local)
        pictures.append(comparison(opened.images[frame], color, np.argmax(seen, axis=-1)))
    return pictures


def _write_picture(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path)

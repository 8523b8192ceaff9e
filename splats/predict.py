"""`podvision predict` of a trained scene: frames along a camera path, as PNG files or a video.

The input is `orbit[:FRAMES]` or `path[:FRAMES]` (`splats.video.scene_path`), a JSON file of
`splats.video.camera_path`, or the folder of a scene, whose views become the frames. JSON and
folders are in the data set's own world. Frames are drawn before the background of the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from splats.data.capture_reader import described_as, read_capture
from splats.data.normalization import transform_cameras
from splats.data.scene_facts import pinholes
from splats.video.camera_path import CameraPath, path_of_capture, read_path
from splats.video.scene_path import orbit_of_scene, path_of_scene, surroundings
from training.errors import ConfigError, InputError
from training.video import open_video, require_encoder

if TYPE_CHECKING:
    from splats.task import SplatTask
    from training.program import Program
    from training.state import TrainState

OF_SCENE = {"orbit": orbit_of_scene, "path": path_of_scene}  # what needs no file
FRAMES, MOST_FRAMES = 120, 100_000
VIDEO = ".mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--input",
        required=True,
        metavar="PATH",
        help="orbit[:FRAMES] around the scene, path[:FRAMES] along its photographs, a camera path "
        "in JSON, or the folder of a scene",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="PATH",
        help=f"folder of PNG files, or {VIDEO}",
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for an input that cannot be a path or a video without its encoder."""
    name, _, count = args.input.partition(":")
    if name in OF_SCENE:
        number = int(count) if count.isascii() and count.isdigit() else 0
        if count and not 1 <= number <= MOST_FRAMES:
            raise ConfigError(
                f"--input {args.input}: write {name}:FRAMES with a number from 1 to {MOST_FRAMES}"
            )
    elif not Path(args.input).exists():
        raise InputError(
            f"--input {args.input} does not exist; give orbit[:FRAMES], path[:FRAMES], a camera "
            "path in JSON or the folder of a scene"
        )
    if args.output.suffix.lower() == VIDEO:
        require_encoder()


def predict(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Renders the path of `args.input` to `args.output`; returns a line that says what."""
    task: SplatTask = program.task  # type: ignore[assignment]
    path = camera_path(args.input, task)
    frames = rendered(task, state, path)
    try:
        if args.output.suffix.lower() == VIDEO:
            write_video(args.output, path, frames)
        else:
            write_frames(args.output, frames)
    except OSError as error:
        raise InputError(f"{args.output} cannot be written ({error.strerror or error})") from error
    return [
        *_notes(args.input, task),
        f"step {step}: {len(path)} frames of {path.width} x {path.height} written to {args.output}",
    ]


def _notes(text: str, task: SplatTask) -> list[str]:
    """What an orbit does where photographs were taken from one side only."""
    if text.partition(":")[0] != "orbit" or (around := surroundings(task.facts)).closed:
        return []
    return [
        f"note: photographs were taken from {np.degrees(around.arc):.0f} degrees around the scene, "
        "so the orbit swings inside of them; --input path goes along the photographs"
    ]


def camera_path(text: str, task: SplatTask) -> CameraPath:
    """The frames to render, in the world of the Gaussians.

    Raises:
      InputError: the file or folder is no path, or the views do not look at a common place.
    """
    name, _, count = text.partition(":")
    if name in OF_SCENE:
        return OF_SCENE[name](task.facts, int(count or FRAMES))
    source = Path(text)
    if source.is_dir():
        # The description that the run was trained from, where a folder holds several.
        kind = task.facts.kind if described_as(source, task.facts.kind) else None
        sparse = task.config.scene.sparse
        if sparse is not None and not (source / sparse).is_dir():
            sparse = None
        path = path_of_capture(read_capture(source, kind, sparse))
        path = shrunk(path, task.config.scene.factor or 1)
    else:
        path = read_path(source)
    moved = transform_cameras(task.facts.normalization, path.world_to_camera)
    return replace(path, world_to_camera=moved)


def shrunk(path: CameraPath, factor: int) -> CameraPath:
    """The same frames with `factor` times fewer pixels a side, rounded as photographs are."""
    if factor == 1:
        return path
    width, height = (max(1, int(side / factor + 0.5)) for side in (path.width, path.height))
    ratio = np.array([width / path.width, height / path.height])
    return replace(path, intrinsics=path.intrinsics * np.tile(ratio, 2), width=width, height=height)


def rendered(task: SplatTask, state: TrainState, path: CameraPath) -> Iterator[np.ndarray]:
    """The frames of a path, uint8 [height, width, 3], one at a time."""
    # Not above: the command line is parsed without jax.
    from splats.evaluation import view_renderer
    from splats.gaussians.refinement import drawable
    from splats.render.rasterize import check_backend

    check_backend(task.config.render.backend, min(state.step.devices(), key=lambda d: d.id))
    cameras = {
        "world_to_camera": path.world_to_camera.astype(np.float32),
        "intrinsics": pinholes(path.intrinsics),
    }
    render_view = view_renderer(
        cameras,
        drawable(state),
        replace(task.settings, width=path.width, height=path.height, render_depth=False),
        task.active_degree(state.applied),
        task.background,
    )
    for frame in range(len(path)):
        yield np.rint(255.0 * np.clip(render_view(frame), 0.0, 1.0)).astype(np.uint8)


def write_frames(folder: Path, frames: Iterator[np.ndarray]) -> None:
    """Writes `frame_00000.png`, ... into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame_{number:05d}.png")


def write_video(file: Path, path: CameraPath, frames: Iterator[np.ndarray]) -> None:
    """Writes an MP4 file, at the path's frames per second."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open_video(file, path.width, path.height, path.frames_per_second) as add:
        for frame in frames:
            add(frame)

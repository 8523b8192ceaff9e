"""`podvision predict` of a trained scene: frames along a camera path, as PNG files or a video.

The path is `orbit[:FRAMES]`, a JSON file of `splats.video.camera_path`, or the folder of a scene,
whose views become the frames. JSON and folders are in the data set's own world. Frames are drawn
before the background of the run (`scene.background`).
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
from splats.data.normalization import camera_centers, transform_cameras
from splats.data.scene_facts import SceneFacts, pinholes
from splats.video.camera_path import CameraPath, orbit, path_of_capture, read_path
from training.errors import ConfigError, InputError
from training.video import open_video, require_encoder

if TYPE_CHECKING:
    from splats.task import SplatTask
    from training.program import Program
    from training.state import TrainState

ORBIT_FRAMES, MOST_ORBIT_FRAMES = 120, 100_000
VIDEO = ".mp4"
# Smallest share of the rays' directions that must differ, for a common point to be well defined.
LEAST_CONVERGENCE = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--input",
        required=True,
        metavar="PATH",
        help="orbit[:FRAMES], a camera path in JSON, or the folder of a scene",
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
    if name == "orbit":
        number = int(count) if count.isascii() and count.isdigit() else 0
        if count and not 1 <= number <= MOST_ORBIT_FRAMES:
            raise ConfigError(
                f"--input {args.input}: write orbit:FRAMES with a number from 1 to "
                f"{MOST_ORBIT_FRAMES}"
            )
    elif not Path(args.input).exists():
        raise InputError(
            f"--input {args.input} does not exist; give orbit[:FRAMES], a camera path in JSON or "
            "the folder of a scene"
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
        f"step {step}: {len(path)} frames of {path.width} x {path.height} written to {args.output}"
    ]


def camera_path(text: str, task: SplatTask) -> CameraPath:
    """The frames to render, in the world of the Gaussians.

    Raises:
      InputError: the file or folder is no path, or the views do not look at a common place.
    """
    name, _, count = text.partition(":")
    if name == "orbit":
        return orbit_of_scene(task.facts, int(count or ORBIT_FRAMES))
    source = Path(text)
    if source.is_dir():
        # The description that the run was trained from, where a folder holds several.
        kind = task.facts.kind if described_as(source, task.facts.kind) else None
        path = path_of_capture(read_capture(source, kind))
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


def orbit_of_scene(facts: SceneFacts, count: int) -> CameraPath:
    """A circle around the point that the views look at, at their median distance and height.

    Raises:
      InputError: the views look in one direction, so that they have no common point.
    """
    poses = facts.world_to_camera.astype(np.float64)
    centers, forward = camera_centers(poses), poses[:, 2, :3]
    # Rows are the camera's axes in the world: the second points down, the third forward.
    up = -poses[:, 1, :3].mean(axis=0)
    up /= np.linalg.norm(up)
    focus = common_point(centers, forward)
    offsets = centers - focus
    height = float(np.median(offsets @ up))
    reach = np.linalg.norm(offsets - (offsets @ up)[:, None] * up, axis=1)
    radius = float(np.median(reach))
    turned = orbit(
        count,
        center=focus.tolist(),
        radius=float(np.hypot(radius, height)),
        elevation=float(np.degrees(np.arctan2(height, radius))),
        up=up.tolist(),
    )
    width, height_pixels = (int(side) for side in facts.sizes[0])
    fx, fy, cx, cy = facts.intrinsics[0][[0, 1, 0, 1], [0, 1, 2, 2]].tolist()
    return CameraPath(turned, np.tile([fx, fy, cx, cy], (count, 1)), width, height_pixels)


def common_point(centers: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """The point [3] nearest to all optical axes, by least squares.

    Args:
      centers, forward: [view, 3], places and unit directions.

    Raises:
      InputError: nearly parallel axes.
    """
    # I - f f^T measures the distance from an axis; summed, it is singular for parallel axes.
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    total = across.sum(axis=0)
    if np.linalg.eigvalsh(total)[0] < LEAST_CONVERGENCE * len(centers):
        raise InputError(
            "the views of this scene look in nearly one direction, so there is nothing to orbit "
            "around; pass --input the folder of a scene or a camera path in JSON"
        )
    return np.linalg.solve(total, np.einsum("vij,vj->i", across, centers))


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

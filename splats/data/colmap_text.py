"""The text variant of COLMAP models.

Lines that start with `#` are comments. cameras.txt: `ID MODEL WIDTH HEIGHT PARAMS...`. images.txt:
two lines an image, `ID QW QX QY QZ TX TY TZ CAMERA NAME` and `(X Y POINT)*`; the second may be
empty, so lines are read strictly in pairs. points3D.txt: `ID X Y Z R G B ERROR (IMAGE KEYPOINT)*`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from splats.data.camera_models import MODEL_BY_NAME, Camera, camera_problem
from splats.data.colmap_model import ColmapImage, ColmapPoints
from splats.formats.byte_reader import read_whole
from training.errors import InputError


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines without comments."""
    try:
        text = read_whole(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; export the model again.") from error
    # Not splitlines, which ends lines at characters that names of images may hold.
    numbered = enumerate(text.split("\n"), 1)
    return [(number, line.strip()) for number, line in numbered if not line.startswith("#")]


def _filled(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in _lines(path):
        if line:
            yield number, line.split()


def _fail(path: Path, number: int, problem: str) -> InputError:
    return InputError(f"{path}, line {number}: {problem}; export the model again.")


def read_cameras(path: Path) -> dict[int, Camera]:
    """Cameras by number."""
    cameras = {}
    for number, words in _filled(path):
        if len(words) < 4:
            raise _fail(path, number, "a camera needs an id, a model, a width and a height")
        name = words[1]
        if name not in MODEL_BY_NAME:
            raise _fail(path, number, f"unknown camera model {name}")
        try:
            params = tuple(float(word) for word in words[4:])
            identity, width, height = int(words[0]), int(words[2]), int(words[3])
        except ValueError as error:
            raise _fail(path, number, f"not a number ({error})") from error
        if len(params) != len(MODEL_BY_NAME[name].parameters):
            needed = len(MODEL_BY_NAME[name].parameters)
            raise _fail(path, number, f"{name} needs {needed} parameters, found {len(params)}")
        problem = camera_problem(name, width, height, params)
        if problem:
            raise _fail(path, number, f"camera {identity} has {problem}")
        if identity in cameras:
            raise _fail(path, number, f"camera {identity} appears twice")
        cameras[identity] = Camera(name, width, height, params)
    return cameras


def _pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, first line, second line) of each image."""
    lines = _lines(path)
    index = 0
    while index < len(lines):
        number, first = lines[index]
        index += 1
        if not first:
            continue
        second = lines[index][1] if index < len(lines) else ""
        index += 1
        yield number, first, second


def read_images(path: Path) -> dict[int, ColmapImage]:
    """Images by number."""
    images = {}
    for number, first, second in _pairs(path):
        # The name comes last and may hold spaces.
        words = first.split(maxsplit=9)
        if len(words) < 10:
            raise _fail(path, number, "an image needs an id, a pose, a camera and a name")
        try:
            pose = np.array([float(word) for word in words[1:8]])
            identity, camera_id = int(words[0]), int(words[8])
            values = second.split()
            keypoints = np.array(values, np.float64).reshape(-1, 3)
            point_ids = np.array([int(word) for word in values[2::3]], np.int64)
        except (ValueError, OverflowError) as error:
            raise _fail(path, number, f"not an image entry ({error})") from error
        if identity in images:
            raise _fail(path, number, f"image {identity} appears twice")
        images[identity] = ColmapImage(
            words[9], camera_id, pose[:4], pose[4:], keypoints[:, :2], point_ids
        )
    return images


def read_points(path: Path) -> ColmapPoints:
    """Points in file order."""
    ids, positions, colors, errors, tracks = [], [], [], [], []
    for number, words in _filled(path):
        if len(words) < 8 or len(words) % 2:
            raise _fail(path, number, "a point needs an id, a position, a color and an error")
        try:
            ids.append(np.uint64(int(words[0])))
            positions.append([float(word) for word in words[1:4]])
            # NumPy refuses integers beyond a byte with OverflowError.
            colors.append([np.uint8(int(word)) for word in words[4:7]])
            errors.append(float(words[7]))
            tracks.append(np.array(words[8:], np.int32).reshape(-1, 2))
        except (ValueError, OverflowError) as error:
            raise _fail(path, number, f"not a point entry ({error})") from error
    if not ids:
        return ColmapPoints.empty()
    return ColmapPoints(
        np.array(ids, np.uint64),
        np.array(positions),
        np.array(colors, np.uint8),
        np.array(errors),
        np.array([len(track) for track in tracks], np.int64),
        np.concatenate(tracks),
    )


def write_cameras(path: Path, cameras: dict[int, Camera]) -> None:
    """Inverse of `read_cameras`."""
    lines = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"]
    for number, camera in cameras.items():
        # repr gives the shortest decimals that are read back as the same float64.
        params = " ".join(repr(float(value)) for value in camera.params)
        lines.append(f"{number} {camera.model} {camera.width} {camera.height} {params}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_images(path: Path, images: dict[int, ColmapImage]) -> None:
    """Inverse of `read_images`."""
    lines = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME", "# (X Y POINT3D_ID)*"]
    for number, image in images.items():
        pose = " ".join(repr(float(value)) for value in (*image.quaternion, *image.translation))
        lines.append(f"{number} {pose} {image.camera_id} {image.name}")
        pairs = zip(image.keypoints.tolist(), image.point_ids.tolist())
        lines.append(" ".join(f"{xy[0]!r} {xy[1]!r} {point}" for xy, point in pairs))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_points(path: Path, points: ColmapPoints) -> None:
    """Inverse of `read_points`."""
    lines = ["# POINT3D_ID X Y Z R G B ERROR (IMAGE_ID POINT2D_IDX)*"]
    ends = np.cumsum(points.track_lengths)
    for index, end in enumerate(ends):
        track = points.tracks[end - points.track_lengths[index] : end].ravel().tolist()
        values = (
            int(points.ids[index]),
            *points.positions[index].tolist(),
            *points.colors[index].tolist(),
            float(points.errors[index]),
            *track,
        )
        lines.append(" ".join(repr(value) for value in values))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

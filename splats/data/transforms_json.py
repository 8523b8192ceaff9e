"""nerfstudio `transforms.json` and Blender `transforms_*.json`.

Both give camera-to-world matrices in OpenGL axes (x right, y up, looking along -z); columns y and z
are negated to get ours. nerfstudio's `applied_transform` is undone, so that the world is the one of
the reconstruction.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from splats.data.camera_models import Camera, camera_problem
from splats.data.capture import FARTHEST, Capture, View
from splats.formats.ply_container import read_ply
from training.errors import InputError

_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
_LARGEST_NUMBER = 1e12  # of any setting of a camera; more is a damaged file


def _load(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise InputError(f"{path} has no list 'frames'; give a transforms file.")
    return content


def _matrix(value: Any, where: str) -> np.ndarray:
    """[4,4] float64 of a 3x4 or 4x4 list."""
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} is not a matrix of numbers; export it again.") from error
    if matrix.shape not in ((3, 4), (4, 4)) or not (np.abs(matrix) < FARTHEST).all():
        raise InputError(f"{where} is not a finite 4x4 matrix; export it again.")
    result = np.eye(4)
    result[:3] = matrix[:3]
    return result


def _rigid(value: Any, where: str) -> np.ndarray:
    """[4,4] float64 of a list whose left part is a rotation, up to the rounding of text."""
    matrix = _matrix(value, where)
    rotation = matrix[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise InputError(f"{where} is not a rotation; export it again.")
    return matrix


def _pose(frame: dict, where: str) -> np.ndarray:
    """World to camera [4,4] of a frame."""
    camera_to_world = _rigid(frame.get("transform_matrix"), f"transform_matrix of {where}")
    # The nearest rotation: text files round, and inverses below rely on orthogonality.
    left, _, right = np.linalg.svd(camera_to_world[:3, :3])
    # OpenGL to ours: y and z of the camera turn around. Its inverse is the transpose.
    flipped = (left @ right) * np.array([1.0, -1.0, -1.0])
    result = np.eye(4)
    result[:3, :3] = flipped.T
    result[:3, 3] = -flipped.T @ camera_to_world[:3, 3]
    return result


def _name(frame: Any, where: str) -> str:
    name = frame.get("file_path") if isinstance(frame, dict) else None
    if not isinstance(name, str) or not name:
        raise InputError(f"{where} has no file_path; name its image.")
    return _portable(name)


def _portable(name: str) -> str:
    """A file name as the other keys spell it, also when it was written on Windows."""
    return name.replace("\\", "/").removeprefix("./")


def _number(source: dict, key: str, where: str) -> float:
    value = source.get(key)
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not abs(value) < _LARGEST_NUMBER
    ):
        raise InputError(f"{where} has no finite number {key!r}; add the intrinsics.")
    return float(value)


def _angle(source: dict, where: str) -> float:
    """The horizontal field of view in radians."""
    angle = _number(source, "camera_angle_x", where)
    if not 0 < angle < np.pi:
        raise InputError(
            f"{where} has the camera_angle_x {angle:g}; it must lie between 0 and pi (radians)."
        )
    return angle


def _camera(source: dict, where: str) -> Camera:
    """The camera of global and per-frame keys merged."""
    width, height = (int(_number(source, key, where)) for key in ("w", "h"))
    if "fl_x" in source:
        fx = _number(source, "fl_x", where)
        fy = _number(source, "fl_y", where) if "fl_y" in source else fx
    else:
        fx = fy = 0.5 * width / np.tan(0.5 * _angle(source, where))
    cx = _number(source, "cx", where) if "cx" in source else width / 2
    cy = _number(source, "cy", where) if "cy" in source else height / 2
    k = {key: _number(source, key, where) if key in source else 0.0 for key in _DISTORTION}
    model, params = _model(source, (fx, fy, cx, cy), k, where)
    problem = camera_problem(model, width, height, params)
    if problem:
        raise InputError(f"{where} has {problem}; correct the intrinsics.")
    return Camera(model, width, height, params)


def _model(
    source: dict, head: tuple[float, ...], k: dict[str, float], where: str
) -> tuple[str, tuple[float, ...]]:
    """COLMAP's name and parameters of the lens; `head` is fx, fy, cx, cy."""
    fisheye = source.get("is_fisheye") is True  # instant-ngp's way to say it
    model = source.get("camera_model", "OPENCV_FISHEYE" if fisheye else "OPENCV")
    if model in ("PINHOLE", "SIMPLE_PINHOLE") or (model == "OPENCV" and not any(k.values())):
        return "PINHOLE", head
    if model in ("OPENCV", "RADIAL", "SIMPLE_RADIAL"):
        if not (k["k3"] or k["k4"]):
            return "OPENCV", (*head, k["k1"], k["k2"], k["p1"], k["p2"])
        tail = (k["k1"], k["k2"], k["p1"], k["p2"], k["k3"], k["k4"], 0.0, 0.0)
        return "FULL_OPENCV", (*head, *tail)
    if model == "OPENCV_FISHEYE":
        return "OPENCV_FISHEYE", (*head, k["k1"], k["k2"], k["k3"], k["k4"])
    raise InputError(
        f"{where} has the camera_model {str(model)[:80]!r}; the known ones are PINHOLE, OPENCV and "
        "OPENCV_FISHEYE, so export perspective views."
    )


def read_nerfstudio(folder: Path) -> Capture:
    """`folder/transforms.json`; frames without their image stay listed (the scene reports them)."""
    path = folder / "transforms.json"
    content = _load(path)
    shared = {key: value for key, value in content.items() if key != "frames"}
    # nerfstudio turns COLMAP's world before it writes the file; points and poses are turned back.
    undo = np.eye(4)
    if "applied_transform" in content:
        undo = np.linalg.inv(_rigid(content["applied_transform"], f"applied_transform of {path}"))
    views = []
    for index, frame in enumerate(content["frames"]):
        where = f"frame {index} of {path}"
        name = _name(frame, where)
        pose = _pose(frame, where) @ np.linalg.inv(undo)
        merged = {**shared, **frame}
        mask = _text_or_none(merged, "mask_path", where)
        if "w" in merged or "h" in merged or "fl_x" in merged:
            views.append(View(name, pose, _camera(merged, where), mask=mask))
        else:  # the size is that of the image, as in Blender's files
            views.append(View(name, pose, None, _angle(merged, where), mask))
    points, colors = _points(folder, content, undo)
    lists = {}
    for part in ("train", "val", "test"):
        names = content.get(f"{part}_filenames")
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{part}_filenames of {path} is not a list of names; correct it.")
        lists[part] = tuple(_portable(name) for name in names)
    views = tuple(sorted(views, key=lambda view: view.name))
    return Capture("nerfstudio", folder, views, points, colors, lists)


def _text_or_none(source: dict, key: str, where: str) -> str | None:
    value = source.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where} has a {key} that is no file name; correct it.")
    return None if value is None else _portable(value)


def _points(folder: Path, content: dict, undo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    name = _text_or_none(content, "ply_file_path", str(folder / "transforms.json"))
    if name is None:
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    vertex = read_ply(folder / name).get("vertex")
    columns = () if vertex is None else vertex.dtype.names or ()
    if vertex is None or not {"x", "y", "z"} <= set(columns):
        raise InputError(f"{folder / name} has no vertices with x, y and z; export it again.")
    points = np.stack([vertex[axis].astype(np.float64) for axis in "xyz"], axis=1)
    gray = np.full(points.shape, 128, np.uint8)  # points without colors: training finds them
    named = {"red", "green", "blue"} <= set(columns)
    colors = np.stack([vertex[c] for c in ("red", "green", "blue")], 1) if named else gray
    if colors.dtype.kind == "f":  # shares of 1, by the custom of float colors
        colors = 255 * np.nan_to_num(colors.astype(np.float64), posinf=1.0)
    # A point with one bad number would spread it over all three in the product below: NaN at once,
    # which `capture_reader.without_outliers` counts and drops.
    points = np.where(np.isfinite(points).all(axis=1, keepdims=True), points, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        points = points @ undo[:3, :3].T + undo[:3, 3]
    return points, np.clip(np.rint(colors), 0, 255).astype(np.uint8)


def read_blender(folder: Path) -> Capture:
    """`folder/transforms_{train,val,test}.json`: square pixels, RGBA images, no points."""
    views, lists = [], {}
    for part in ("train", "val", "test"):
        path = folder / f"transforms_{part}.json"
        if not path.is_file():
            continue
        content = _load(path)
        angle = _angle(content, str(path))
        names = []
        for index, frame in enumerate(content["frames"]):
            where = f"frame {index} of {path}"
            names.append(_name(frame, where))
            views.append(View(names[-1], _pose(frame, where), None, angle))
        lists[part] = tuple(names)
    views = tuple(sorted(views, key=lambda view: view.name))
    nothing = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    return Capture("blender", folder, views, *nothing, lists)

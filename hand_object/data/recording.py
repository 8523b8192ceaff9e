"""Recordings with a camera that moves and several objects: pictures, depth, `cameras.npz`, truth.

A folder of one camera has `image/`, `mask/`, `depth/` (uint16, 0.1 mm) and `cameras.npz` (K [3, 3],
world_to_camera [T, 4, 4]); `ground_truth.npz`, there or in the folder around it, has `object_names`
[N], `object_to_world` [T, N, 4, 4], and of each hand `{side}_pose_axis_angle` [T, J, 3],
`{side}_trans` [T, 3] and `{side}_vertices` [T, V, 3]. One object is reconstructed, the others are
background. Its first points are what depth shows of it. The world is moved so that its origin is
the middle of the object's path.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from hand_object.data.array_file import read_arrays
from hand_object.data.picture_files import picture_paths, picture_size, read_gray
from hand_object.data.sequence import CLASS_OF, HandTrack, ObjectTrack, Sequence
from hand_object.hands.model import SIDES
from training.errors import ConfigError, InputError

CAMERAS, TRUTH = "cameras.npz", "ground_truth.npz"
SPHERE, CAMERA_AT, FARTHEST = 6.0, 2.0, 5.0  # scene units
DEPTH_UNIT = 1e-4  # meters
HAND_LEVELS = {"right": 150, "left": 250}
MARGIN = 1.2  # of the ball around what depth shows of an object, which is not all of it
MOST_POINTS = 4000
LEAST_POINTS = 20  # of an object in all frames, below which it is not seen
_HAND_PARTS = ("vertices", "pose_axis_angle", "trans")


def is_recording(folder: Path) -> bool:
    """Whether a folder is one of these."""
    return (folder / CAMERAS).is_file()


def read_recording(folder: Path, name: str | None) -> Sequence:
    """The sequence of one camera and one object.

    Args:
      name: of the object; None: the one that is nearest to a hand.

    Raises:
      ConfigError: there is no such object.
      InputError: a part is missing, its sizes differ, or the object is never seen.
    """
    images = picture_paths(folder / "image")
    if not images:
        raise InputError(f"there are no frames in {folder / 'image'}; extract them from the video")
    cameras = read_arrays(folder / CAMERAS, ("K", "world_to_camera"))
    place = folder if (folder / TRUTH).is_file() else folder.parent
    truth = read_arrays(place / TRUTH, ("object_names", "object_to_world"))
    count = len(images)
    _check_rows(folder / CAMERAS, {"world_to_camera": cameras["world_to_camera"]}, count)
    per_frame = ("object_to_world", *(f"{side}_{part}" for side in SIDES for part in _HAND_PARTS))
    _check_rows(place / TRUTH, {key: truth[key] for key in per_frame if key in truth}, count)
    if not np.isfinite(truth["object_to_world"]).all():
        raise InputError(
            f"{place / TRUTH}: object_to_world is not finite everywhere; interpolate it, or leave "
            "these frames out"
        )
    world_to_camera = cameras["world_to_camera"].astype(np.float64)
    masks = {path.stem: path for path in picture_paths(folder / "mask")}
    mask_paths = tuple(masks.get(image.stem) for image in images)
    seen = _seen_points(folder, mask_paths, cameras["K"], world_to_camera)
    names = [str(own) for own in truth["object_names"]]
    levels = _levels_of(seen, truth["object_to_world"], names)
    hands = {side: truth[f"{side}_vertices"] for side in SIDES if f"{side}_vertices" in truth}
    chosen = _nearest(seen, levels, hands) if name is None else name
    if chosen not in levels:
        raise ConfigError(
            f"there is no object {chosen!r} that {folder} shows; name one of "
            f"{', '.join(sorted(levels))}"
        )
    pose = truth["object_to_world"][:, names.index(chosen)]
    thing, middle = _object(seen[levels[chosen]], pose)
    world_to_camera[:, :3, 3] += world_to_camera[:, :3, :3] @ middle
    away = np.linalg.norm(np.linalg.inv(world_to_camera)[:, :3, 3], axis=1)
    size = picture_size(images[0])
    return Sequence(
        name=f"{folder.parent.name}_{folder.name}_{chosen}",
        images=tuple(images),
        masks=mask_paths,
        size=size,
        file_size=size,
        intrinsics=np.tile(cameras["K"].astype(np.float32), (count, 1, 1)),
        world_to_camera=world_to_camera.astype(np.float32),
        hands={side: _hand(truth, side, middle) for side in hands},
        object=thing,
        scene_scale=float(min(CAMERA_AT / np.median(away), FARTHEST / away.max())),
        sphere=SPHERE,
        classes={levels[chosen]: CLASS_OF["object"]}
        | {HAND_LEVELS[side]: CLASS_OF[side] for side in hands},
    )


def _seen_points(
    folder: Path, masks, k: np.ndarray, world_to_camera: np.ndarray
) -> dict[int, list[np.ndarray]]:
    """World points [n, 3] of each frame by gray level of the mask, of levels that are no hand."""
    points: dict[int, list[np.ndarray]] = {}
    for frame, path in enumerate(masks):
        if path is None:
            continue
        depth_path = folder / "depth" / f"{path.stem}.png"
        if not depth_path.is_file():
            continue
        levels = read_gray(path)
        with Image.open(depth_path) as picture:
            depth = np.asarray(picture).astype(np.float64) * DEPTH_UNIT
        for level in np.unique(levels[depth > 0]).tolist():
            if level == 0 or level in HAND_LEVELS.values():
                continue
            row, column = np.nonzero((levels == level) & (depth > 0))
            rays = np.stack([column, row, np.ones_like(row)], axis=1) @ np.linalg.inv(k).T
            local = rays * depth[row, column, None]
            rotation, shift = world_to_camera[frame, :3, :3], world_to_camera[frame, :3, 3]
            own = points.setdefault(level, [np.zeros((0, 3))] * len(masks))
            own[frame] = (local - shift) @ rotation
    return points


def _levels_of(seen, poses: np.ndarray, names: list[str]) -> dict[str, int]:
    """The gray level of each object: that whose points lie nearest to its origin."""
    levels: dict[str, tuple[float, int]] = {}
    for level, points in seen.items():
        if sum(map(len, points)) < LEAST_POINTS:
            continue
        away = [
            np.mean([np.median(np.linalg.norm(own - poses[frame, number, :3, 3], axis=1))
                     for frame, own in enumerate(points) if len(own)])
            for number in range(len(names))
        ]  # fmt: skip
        name, least = names[int(np.argmin(away))], float(np.min(away))
        if name not in levels or least < levels[name][0]:
            levels[name] = least, level
    return {name: level for name, (_, level) in levels.items()}


def _nearest(seen, levels: dict[str, int], hands: dict[str, np.ndarray]) -> str:
    """The object that comes nearest to a hand, mean over the frames that show it."""
    away = {}
    for name, level in levels.items():
        least = [
            min(KDTree(own).query(vertices[frame])[0].min() for vertices in hands.values())
            for frame, own in enumerate(seen[level])
            if len(own) and hands
        ]
        away[name] = float(np.mean(least)) if least else 0.0
    if not away:
        raise InputError("no object is seen by mask and depth; give depth/, or a HOLD build folder")
    return min(away, key=lambda name: away[name])


def _object(points: list[np.ndarray], pose: np.ndarray) -> tuple[ObjectTrack, np.ndarray]:
    """The track, and the middle of the path [3], which is the origin of its translations."""
    own = np.concatenate(
        [(world - pose[frame, :3, 3]) @ pose[frame, :3, :3] for frame, world in enumerate(points)]
    )
    own = own[:: max(1, len(own) // MOST_POINTS)]
    center = (own.min(axis=0) + own.max(axis=0)) / 2
    radius = MARGIN * float(np.abs(own - center).max())
    middle = (pose[:, :3, :3] @ center + pose[:, :3, 3]).mean(axis=0)
    real = np.float32
    track = ObjectTrack(
        axis_angle=Rotation.from_matrix(pose[:, :3, :3]).as_rotvec().astype(real),
        translation=(pose[:, :3, 3] - middle).astype(real),
        valid=np.ones(len(pose), bool),
        points=((own - center) / radius).astype(real),
        center=center.astype(real),
        radius=radius,
    )
    return track, middle


def _hand(truth: dict[str, np.ndarray], side: str, middle: np.ndarray) -> HandTrack:
    """By its meshes where there are no poses."""
    real, count = np.float32, len(truth[f"{side}_vertices"])
    vertices = (truth[f"{side}_vertices"] - middle).astype(real)
    posed = f"{side}_pose_axis_angle" in truth
    pose = truth[f"{side}_pose_axis_angle"] if posed else np.zeros((count, 0, 3))
    shift = truth[f"{side}_trans"] - middle if posed else np.zeros((count, 3))
    finite = np.isfinite(vertices).all(axis=(1, 2)) & np.isfinite(pose).all(axis=(1, 2))
    return HandTrack(
        pose=pose.astype(real),
        translation=shift.astype(real),
        shape=np.zeros(0, real),
        valid=np.asarray(finite),
        vertices=None if posed else vertices,
    )


def _check_rows(path: Path, tables: dict[str, np.ndarray], count: int) -> None:
    """Raises InputError where a table has not a row for each picture."""
    for key, table in tables.items():
        if len(table) != count:
            raise InputError(
                f"{path}: {key} has {len(table)} frames but there are {count} pictures; give each "
                "picture a row"
            )

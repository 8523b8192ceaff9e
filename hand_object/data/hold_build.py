"""HOLD's build folders: `image/`, `mask/` and `data.npy` (Fan et al. 2024, its generator).

`data.npy` holds, per frame i, `world_mat_i` = K [R | t] and `scale_mat_i`, which maps the scene
(in units of the bounding sphere) to the world; and, per entity, poses in the world. R and t are
those of an OpenCV camera, whatever axes the world has, since K projects to pixels; HOLD's worlds
usually have OpenGL's axes, which changes nothing here. The world is moved so that its origin is the
center of the sphere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.linalg

from hand_object.data.picture_files import picture_paths, picture_size
from hand_object.data.sequence import HandTrack, ObjectTrack, Sequence, filled
from hand_object.hands.model import SIDES
from hand_object.restricted_pickle import read_pickled_npy
from training.errors import InputError


def read_hold_build(folder: Path) -> Sequence:
    """The sequence of a build folder, or of the folder that `build/` lies in.

    Raises:
      InputError: a part is missing, its sizes differ, or `data.npy` is not HOLD's.
    """
    root = folder / "build" if (folder / "build").is_dir() else folder
    path = root / "data.npy"
    data = read_pickled_npy(path)
    cameras, entities = _part(data, "cameras", path), _part(data, "entities", path)
    images = picture_paths(root / "image")
    if not images:
        raise InputError(f"there are no frames in {root / 'image'}; extract them from the video")
    count = sum(key.startswith("world_mat_") for key in cameras)
    if count != len(images):
        raise InputError(
            f"{path} has {count} cameras but {root / 'image'} has {len(images)} frames"
            f"{_lost(images)}; extract the frames again, or build the sequence of those there are"
        )
    intrinsics, world_to_camera, center, scene_scale = _cameras(cameras, count, path)
    size = picture_size(images[0])
    masks = _masks(root / "mask", images)
    return Sequence(
        name=str(data.get("seq_name", root.parent.name)),
        images=tuple(images),
        masks=masks,
        size=size,
        file_size=size,
        intrinsics=intrinsics,
        world_to_camera=world_to_camera,
        hands={
            side: _hand(entities[side], count, center, f"{path}: entities.{side}")
            for side in SIDES
            if side in entities
        },
        object=_object(entities["object"], count, center, f"{path}: entities.object")
        if "object" in entities
        else None,
        scene_scale=scene_scale,
        sphere=float(data.get("scene_bounding_sphere", 6.0)),
    )


def _lost(images: list[Path]) -> str:
    """The first number that is missing in a row of numbered frames, as words."""
    if not all(image.stem.isdecimal() for image in images):
        return ""
    numbers = {int(image.stem) for image in images}
    gaps = sorted(set(range(min(numbers), max(numbers))) - numbers)
    width = len(images[0].stem)
    return f" ({gaps[0]:0{width}d}{images[0].suffix} is missing)" if gaps else ""


def _masks(folder: Path, images: list[Path]) -> tuple[Path | None, ...]:
    """The mask of each frame, by its name."""
    masks = {picture.stem: picture for picture in picture_paths(folder)}
    found = tuple(masks.get(image.stem) for image in images)
    if masks and not any(found):
        first = next(iter(masks.values()))
        raise InputError(
            f"{first} and all {len(masks)} masks have names that no frame has, such as "
            f"{images[0].stem}; give a mask the name of its frame"
        )
    return found


def decompose(projection: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """K [3, 3] with K[2, 2] = 1 and world -> camera [4, 4] of a projection [3, 4]."""
    # A projection means the same when it is negated, but its rotation is a mirror image then.
    if np.linalg.det(projection[:, :3]) < 0:
        projection = -projection
    upper, rotation = scipy.linalg.rq(projection[:, :3])
    signs = np.diag(np.where(np.diag(upper) < 0, -1.0, 1.0))
    upper, rotation = upper @ signs, signs @ rotation
    camera = np.eye(4)
    camera[:3, :3] = rotation
    camera[:3, 3] = np.linalg.solve(upper, projection[:, 3])
    return upper / upper[2, 2], camera


def _cameras(cameras: dict, count: int, path: Path):
    intrinsics, world_to_camera = np.zeros((count, 3, 3)), np.zeros((count, 4, 4))
    scale = np.asarray(_part(cameras, "scale_mat_0", path), np.float64)
    for frame in range(count):
        world = np.asarray(_part(cameras, f"world_mat_{frame}", path), np.float64)
        own = np.asarray(cameras.get(f"scale_mat_{frame}", scale), np.float64)
        if world.shape != (4, 4) or not np.isfinite(world).all():
            raise InputError(
                f"{path}: world_mat_{frame} is no finite 4 x 4 matrix; interpolate the camera of "
                f"frame {frame} or build the sequence without it"
            )
        if not np.allclose(own, scale):
            raise InputError(f"{path}: scale_mat_{frame} differs from that of frame 0")
        if abs(np.linalg.det(world[:3, :3])) < 1e-9:
            raise InputError(f"{path}: world_mat_{frame} projects all points to a line")
        intrinsics[frame], world_to_camera[frame] = decompose(world[:3])
    if scale.shape != (4, 4) or scale[0, 0] <= 0:
        raise InputError(f"{path}: scale_mat_0 is no 4 x 4 matrix with a positive scale")
    center = scale[:3, 3]
    world_to_camera[:, :3, 3] += world_to_camera[:, :3, :3] @ center
    real = np.float32
    return intrinsics.astype(real), world_to_camera.astype(real), center, float(1 / scale[0, 0])


def _hand(entity: dict, count: int, center: np.ndarray, where: str) -> HandTrack:
    meshes = isinstance(entity, dict) and "hand_vertices" in entity and "hand_poses" not in entity
    pose = None if meshes else _table(entity, "hand_poses", count, where)
    model = entity.get("hand_model")
    name = None if model is None else str(model)
    if pose is None:
        return _meshes(entity, count, center, where, name)
    if pose.shape[1] % 3:
        raise InputError(f"{where}.hand_poses has {pose.shape[1]} numbers a frame, not 3 a joint")
    shift = _table(entity, "hand_trans", count, where, 3)
    shape = np.asarray(entity.get("mean_shape", np.zeros(10)), np.float32).reshape(-1)
    if not np.isfinite(shape).all():
        raise InputError(f"{where}.mean_shape is not finite; give zeros for the mean hand")
    both = np.concatenate([pose, shift], axis=1)
    # Nothing but zeros is what trackers write where they found no hand.
    valid = _finite(both) & both.any(axis=1)
    return HandTrack(
        pose=filled(pose, valid).reshape(count, -1, 3),
        translation=filled(shift - center.astype(np.float32), valid),
        shape=shape,
        valid=valid,
        model=name,
    )


def _meshes(entity: dict, count: int, center: np.ndarray, where: str, model: str | None):
    """A hand that is known by its mesh in each frame only."""
    vertices = np.asarray(entity["hand_vertices"], np.float32)
    if vertices.ndim != 3 or len(vertices) != count or vertices.shape[2] != 3:
        raise InputError(
            f"{where}.hand_vertices is {vertices.shape}; {count} frames x vertices x 3 were "
            "expected, in meters of the world"
        )
    flat = vertices.reshape(count, -1)
    valid = _finite(flat) & flat.any(axis=1)
    return HandTrack(
        pose=np.zeros((count, 0, 3), np.float32),
        translation=np.zeros((count, 3), np.float32),
        shape=np.zeros(0, np.float32),
        valid=valid,
        model=model,
        vertices=filled(vertices - center.astype(np.float32), valid),
    )


def _object(entity: dict, count: int, center: np.ndarray, where: str) -> ObjectTrack:
    pose = _table(entity, "object_poses", count, where, 6)
    valid = _finite(pose)
    normal = np.asarray(entity.get("norm_mat", np.eye(4)), np.float64)
    if normal.shape != (4, 4) or normal[0, 0] <= 0:
        raise InputError(f"{where}.norm_mat is no 4 x 4 matrix with a positive scale")
    pose = filled(pose, valid)
    return ObjectTrack(
        axis_angle=pose[:, :3],
        translation=pose[:, 3:] - center.astype(np.float32),
        valid=valid,
        points=np.asarray(entity.get("pts.cano", np.zeros((0, 3))), np.float32).reshape(-1, 3),
        center=(-normal[:3, 3] / normal[0, 0]).astype(np.float32),
        radius=float(1 / normal[0, 0]),
        scale=float(np.asarray(entity.get("obj_scale", 1.0)).reshape(-1)[0]),
    )


def _table(entity: dict, key: str, count: int, where: str, width: int | None = None) -> np.ndarray:
    """[T, width] float32."""
    table = np.asarray(_part(entity, key, where), np.float32)
    if table.ndim != 2 or len(table) != count or (width is not None and table.shape[1] != width):
        rows = f"{len(table)} frames" if table.ndim else "a number"
        each = f" of {table.shape[1]} numbers" if table.ndim == 2 and width else ""
        wanted = f"{count} frames" + (f" of {width} numbers" if width else "")
        raise InputError(
            f"{where}.{key} has {rows}{each}, the sequence needs {wanted}; give each frame a row, "
            "NaN where nothing was found"
        )
    return table


def _finite(table: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(table).all(axis=1))


def _part(held, key: str, where: Path | str):
    if not isinstance(held, dict) or key not in held:
        raise InputError(f"{where} lacks {key}; build the sequence again")
    return held[key]

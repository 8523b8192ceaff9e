"""The binary variant of COLMAP models (little endian; layout of COLMAP's `src/colmap/scene`).

cameras.bin   u64 n; each i32 id, i32 model, u64 width, u64 height, f64 parameters
images.bin    u64 n; each i32 id, 4 f64 quaternion, 3 f64 translation, i32 camera, zero-terminated
              name, u64 m, m x (f64 x, f64 y, i64 point)
points3D.bin  u64 n; each u64 id, 3 f64 position, 3 u8 color, f64 error, u64 length,
              length x (i32 image, i32 keypoint)
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from splats.data.camera_models import MODEL_BY_NAME, MODEL_BY_NUMBER, Camera, camera_problem
from splats.data.colmap_model import ColmapImage, ColmapPoints
from splats.formats.byte_reader import ByteReader, read_whole

_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<iiQQ")
_IMAGE = struct.Struct("<i7di")
_POINT = struct.Struct("<Q3d3BdQ")
_KEYPOINT = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
_TRACK = np.dtype("<i4")


def read_cameras(path: Path) -> dict[int, Camera]:
    """Cameras by number."""
    reader = ByteReader(read_whole(path), str(path))
    cameras = {}
    for index in range(reader.take_count(_CAMERA.size, "cameras")):
        record = f"camera {index}"
        number, model_number, width, height = reader.take(_CAMERA, record)
        if model_number not in MODEL_BY_NUMBER:
            raise reader.fail(f"{record} has the unknown model number {model_number}")
        if number in cameras:
            raise reader.fail(f"{record} repeats the camera number {number}")
        model = MODEL_BY_NUMBER[model_number]
        params = reader.take_array("<f8", len(model.parameters), f"parameters of {record}")
        problem = camera_problem(model.name, width, height, params.tolist())
        if problem:
            raise reader.fail(f"{record} has {problem}")
        cameras[number] = Camera(model.name, width, height, tuple(params.tolist()))
    reader.finish("cameras")
    return cameras


def read_images(path: Path) -> dict[int, ColmapImage]:
    """Images by number."""
    reader = ByteReader(read_whole(path), str(path))
    images = {}
    for index in range(reader.take_count(_IMAGE.size + 1 + _COUNT.size, "images")):
        record = f"image {index}"
        number, *pose, camera_id = reader.take(_IMAGE, record)
        name = reader.take_text(f"the name of {record}")
        count = reader.take_count(_KEYPOINT.itemsize, f"keypoints of {record}")
        keypoints = reader.take_array(_KEYPOINT, count, f"keypoints of {record}")
        if number in images:
            raise reader.fail(f"{record} repeats the image number {number}")
        # Copies of the keypoints: views of the bytes would keep the whole file in memory.
        images[number] = ColmapImage(
            name,
            camera_id,
            np.array(pose[:4]),
            np.array(pose[4:]),
            np.array(keypoints["xy"]),
            np.array(keypoints["point"]),
        )
    reader.finish("images")
    return images


def read_points(path: Path) -> ColmapPoints:
    """Points in file order."""
    reader = ByteReader(read_whole(path), str(path))
    count = reader.take_count(_POINT.size, "points")
    ids = np.zeros(count, np.uint64)
    positions, colors = np.zeros((count, 3)), np.zeros((count, 3), np.uint8)
    errors, lengths = np.zeros(count), np.zeros(count, np.int64)
    tracks = []
    for index in range(count):
        record = f"point {index}"
        ids[index], *values, length = reader.take(_POINT, record)
        positions[index], colors[index], errors[index] = values[:3], values[3:6], values[6]
        # Taken before the length is stored: a damaged one may not even fit 64 signed bits.
        tracks.append(reader.take_array(_TRACK, 2 * length, f"the track of {record}"))
        lengths[index] = length
    reader.finish("points")
    flat = np.concatenate(tracks) if tracks else np.zeros(0, np.int32)
    return ColmapPoints(ids, positions, colors, errors, lengths, flat.reshape(-1, 2))


def write_cameras(path: Path, cameras: dict[int, Camera]) -> None:
    """Inverse of `read_cameras`."""
    parts = [_COUNT.pack(len(cameras))]
    for number, camera in cameras.items():
        model = MODEL_BY_NAME[camera.model].number
        parts.append(_CAMERA.pack(number, model, camera.width, camera.height))
        parts.append(np.asarray(camera.params, "<f8").tobytes())
    path.write_bytes(b"".join(parts))


def write_images(path: Path, images: dict[int, ColmapImage]) -> None:
    """Inverse of `read_images`."""
    parts = [_COUNT.pack(len(images))]
    for number, image in images.items():
        pose = (*image.quaternion, *image.translation)
        parts.append(_IMAGE.pack(number, *pose, image.camera_id))
        parts.append(image.name.encode("utf-8") + b"\0" + _COUNT.pack(len(image.keypoints)))
        keypoints = np.zeros(len(image.keypoints), _KEYPOINT)
        keypoints["xy"], keypoints["point"] = image.keypoints, image.point_ids
        parts.append(keypoints.tobytes())
    path.write_bytes(b"".join(parts))


def write_points(path: Path, points: ColmapPoints) -> None:
    """Inverse of `read_points`."""
    parts = [_COUNT.pack(len(points.ids))]
    ends = np.cumsum(points.track_lengths)
    for index, end in enumerate(ends):
        length = int(points.track_lengths[index])
        row = (*points.positions[index], *points.colors[index], points.errors[index], length)
        parts.append(_POINT.pack(int(points.ids[index]), *row))
        parts.append(points.tracks[end - length : end].astype(_TRACK).tobytes())
    path.write_bytes(b"".join(parts))

"""Sequences as other people have them: changes of a sound HOLD folder on the disk.

Each change takes the build folder; `AWKWARD` in `awkward_test.py` says what has to come of it.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from hand_object.data.rasterizer import draw
from hand_object.synthetic import LEVELS, Scene, make_sequence

SCENE = Scene(frames=6, size=(48, 64), object="box", turns=0.4)
OPENGL = np.diag([1.0, -1, -1, 1])


def data_of(build: Path) -> dict:
    return np.load(build / "data.npy", allow_pickle=True).item()


def write_data(build: Path, data) -> None:
    np.save(build / "data.npy", np.array(data, object), allow_pickle=True)


def edited(change):
    """A change of what `data.npy` holds."""

    def on_disk(build: Path) -> None:
        data = data_of(build)
        change(data)
        write_data(build, data)

    return on_disk


def pictures(build: Path, kind: str, change) -> None:
    """Rewrites the pictures of a kind: `change` takes one and gives one."""
    for path in sorted((build / kind).iterdir()):
        with Image.open(path) as picture:
            changed = change(picture)
        changed.save(path)


def each(kind: str, change):
    return lambda build: pictures(build, kind, change)


def gray(picture: Image.Image) -> Image.Image:
    return picture.convert("L")


def translucent(picture: Image.Image) -> Image.Image:
    picture.putalpha(128)
    return picture


def sixteen_bits(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


def numbered(picture: Image.Image) -> Image.Image:
    """Classes 0, 1, 2 with a palette, as segmenters write them."""
    classes = np.searchsorted([25, 100, 200], np.asarray(picture))
    palette = Image.fromarray(classes.astype(np.uint8))
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    return palette


def palette_of_levels(picture: Image.Image) -> Image.Image:
    """The same gray levels, stored by a palette in another order."""
    levels = np.asarray(picture)
    held = np.unique(levels)
    stored = Image.fromarray(np.searchsorted(held, levels).astype(np.uint8))
    stored.putpalette(np.repeat(held, 3).astype(np.uint8).tolist())
    return stored


def resized(width: int, height: int):
    return lambda picture: picture.resize((width, height), Image.Resampling.NEAREST)


def portrait(build: Path) -> None:
    """The camera turned by a quarter about its axis, and the pictures with it."""
    for kind in ("image", "mask"):
        pictures(build, kind, lambda picture: picture.transpose(Image.Transpose.ROTATE_90))
    data = data_of(build)
    # Counterclockwise: the new column is the old row, the new row the old column from the right.
    turn = np.array([[0.0, 1, 0], [-1, 0, SCENE.size[1] - 1], [0, 0, 1]])
    for frame in range(SCENE.frames):
        world = data["cameras"][f"world_mat_{frame}"]
        world[:3] = turn @ world[:3]
    write_data(build, data)


def without_masks(*frames: int):
    def change(build: Path) -> None:
        for frame in frames:
            (build / f"mask/{frame:04d}.png").unlink()

    return change


def without_frame(frame: int):
    return lambda build: (build / f"image/{frame:04d}.png").unlink()


def hand_poses(value: float, frames):
    def change(data):
        for key in ("hand_poses", "hand_trans"):
            data["entities"]["right"][key][frames] = value

    return edited(change)


def opengl_cameras(data) -> None:
    """K times [R | t] of a camera that looks along -z."""
    k = np.eye(4)
    for frame in range(SCENE.frames):
        world = data["cameras"][f"world_mat_{frame}"]
        k[:3, :3] = _intrinsics(world)
        data["cameras"][f"world_mat_{frame}"] = k @ OPENGL @ np.linalg.inv(k) @ world


def cameras_behind(data) -> None:
    """A camera that sees nothing in whatever axes: it looks away, and stands aside."""
    opengl_cameras(data)
    aside = np.eye(4)
    aside[0, 3] = 1.0
    for frame in range(SCENE.frames):
        data["cameras"][f"world_mat_{frame}"] = data["cameras"][f"world_mat_{frame}"] @ aside


def _intrinsics(world: np.ndarray) -> np.ndarray:
    """Of a camera diag(1, -1, -1), which made sequences have."""
    return world[:3, :3] @ OPENGL[:3, :3]


def millimeters(data) -> None:
    """All lengths times 1000, as where a preprocessing kept its own unit."""
    for frame in range(SCENE.frames):
        world = data["cameras"][f"world_mat_{frame}"]
        world[:3, 3] *= 1000
        scale = data["cameras"][f"scale_mat_{frame}"]
        data["cameras"][f"scale_mat_{frame}"] = np.diag([1000.0] * 3 + [1]) @ scale
    data["entities"]["right"]["hand_trans"] *= 1000
    thing = data["entities"]["object"]
    thing["object_poses"][:, 3:] *= 1000
    thing["norm_mat"] = thing["norm_mat"] @ np.diag([1e-3] * 3 + [1])


def camera_far(data) -> None:
    for frame in range(SCENE.frames):
        data["cameras"][f"scale_mat_{frame}"] = np.diag([0.05, 0.05, 0.05, 1.0])


def wrong_intrinsics(data) -> None:
    """K of the video before its frames were made smaller."""
    for frame in range(SCENE.frames):
        data["cameras"][f"world_mat_{frame}"][:2] *= 8


def spoiled(entity: str, key: str, frame: int):
    def change(data):
        data["entities"][entity][key][frame, 1] = np.nan

    return edited(change)


class Evil:
    """What a pickle may ask for: to write a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.write_text, (self.target, "executed"))


def malicious(build: Path) -> None:
    with (build / "data.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(Evil(build / "executed"), file)


def second_hand(build: Path, other: Path) -> None:
    """The left hand of another made sequence, which holds the same object, and its mask."""
    made = make_sequence(
        Scene(frames=SCENE.frames, size=SCENE.size, object="box", side="left", turns=0.4), other
    )
    with np.load(build.parent / "ground_truth.npz") as file:
        own = dict(file)
    data, left = data_of(build), data_of(other / "build")["entities"]["left"]
    poses = left["hand_poses"].reshape(SCENE.frames, -1, 3)
    for frame in range(SCENE.frames):
        move = own["object_to_world"][frame] @ np.linalg.inv(made["object_to_world"][frame])
        turn = Rotation.from_matrix(move[:3, :3])
        vertices = made["hand_vertices"][frame] @ move[:3, :3].T + move[:3, 3]
        whole = turn * Rotation.from_rotvec(poses[frame, 0])
        # The hand turns about its wrist: whatever vertex is asked, the shift is the same.
        poses[frame, 0] = whole.as_rotvec()
        left["hand_trans"][frame] += _shift(made, frame, move)
        own_object = own["object_to_world"][frame]
        thing = own["object_vertices"] @ own_object[:3, :3].T + own_object[:3, 3]
        meshes = [
            (thing, own["object_faces"]),
            (own["hand_vertices"][frame], own["hand_faces"]),
            (vertices, made["hand_faces"]),
        ]
        seen = draw(meshes, own["K"], own["world_to_camera"][frame], SCENE.size)
        levels = np.array([0, LEVELS["object"], LEVELS["right"], LEVELS["left"]], np.uint8)
        Image.fromarray(levels[seen.mesh + 1]).save(build / f"mask/{frame:04d}.png")
    left["hand_poses"] = poses.reshape(SCENE.frames, -1)
    data["entities"]["left"] = left
    write_data(build, data)


def _shift(made: dict, frame: int, move: np.ndarray) -> np.ndarray:
    """What is added to the translation of a hand that is moved as a whole."""
    wrist = made["hand_joints"][frame, 0]
    return move[:3, :3] @ wrist + move[:3, 3] - wrist


def truncated(build: Path) -> None:
    path = build / "image/0002.png"
    path.write_bytes(path.read_bytes()[:200])


def renamed_masks(build: Path) -> None:
    for path in sorted((build / "mask").iterdir()):
        path.rename(path.with_name(f"mask_{path.name}"))


def meshes_only(build: Path) -> None:
    """Vertices of the hand in the world instead of poses; none in one frame."""
    with np.load(build.parent / "ground_truth.npz") as file:
        vertices = file["hand_vertices"].copy()
    vertices[2] = np.nan
    data = data_of(build)
    data["entities"]["right"] = {"hand_vertices": vertices, "hand_model": "parametric"}
    write_data(build, data)

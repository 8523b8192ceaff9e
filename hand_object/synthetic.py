"""Made-up sequences with exact ground truth: a hand of any model holds and turns an object.

Fingers close around the object until the skin touches it; then hand and object turn together before
a fixed camera, so that each side is seen, with a small slow motion of the object in the hand. What
is written is a HOLD build folder (see `data/hold_build.py`), `ground_truth.npz` and the object as
`object.obj`. The world has its origin at the center of the object's path; the camera is OpenCV's.
The same settings give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from hand_object.data.rasterizer import Drawn, draw
from hand_object.data.solids import solid
from hand_object.hands.chirality import palm_direction, rest_joints
from hand_object.hands.mesh import vertex_normals
from hand_object.hands.model import HandModel
from hand_object.hands.skinning import pose_hand
from hand_object.hands.sources import DEFAULT, load_hand
from hand_object.metrics.closed_surface import ClosedSurface
from hand_object.metrics.surfaces import sample_surface
from training.errors import ConfigError

SPHERE, CAMERA_AT = 6.0, 2.0  # scene units: radius of the sphere, distance of the camera
LEVELS = {"object": 50, "right": 150, "left": 250}
CLOSED = 1.2  # rad, the most that a finger joint bends
SKIN, GAP = (0.78, 0.58, 0.48), 0.002  # color; meters between palm and object at the start
_pose = jax.jit(pose_hand)


@dataclass(frozen=True)
class Scene:
    """What is made.

    Attributes:
      frames, size: number, and (height, width) in pixels.
      hand, side: model and side.
      object: name of a solid or path of an OBJ file.
      turns: rotations before the camera over the sequence.
      distance: of the camera, meters.
      pose_noise, shift_noise: standard deviation in rad and m of what is added to the poses that
        are written (not to the ground truth), as poses of a real preprocessing have.
      missing: share of frames without a hand pose (NaN).
      seed: of noise, texture and path.
    """

    frames: int = 8
    size: tuple[int, int] = (48, 64)
    hand: str = DEFAULT
    side: str = "right"
    object: str = "bottle"
    turns: float = 1.0
    distance: float = 0.45
    pose_noise: float = 0.0
    shift_noise: float = 0.0
    missing: float = 0.0
    seed: int = 0


class Grasp(NamedTuple):
    """In the frame of the hand's wrist: pose [J, 3], and the object's rotation and place."""

    pose: np.ndarray
    rotation: np.ndarray
    place: np.ndarray


def make_sequence(scene: Scene, folder: Path) -> dict[str, np.ndarray]:
    """Writes the sequence to `folder`; returns what `ground_truth.npz` holds.

    Raises:
      ConfigError: the hand, the side or the object is unknown, or there are no frames.
    """
    if scene.frames < 1:
        raise ConfigError(f"frames = {scene.frames}: a sequence has at least one frame")
    model, (vertices, faces) = load_hand(scene.hand, scene.side), solid(scene.object)
    truth = motion(scene, model, grasp(model, vertices, faces))
    posed = _pose(model, truth["hand_pose_axis_angle"], truth["hand_trans"], None)
    truth |= {
        "hand_vertices": np.asarray(posed.vertices),
        "hand_joints": np.asarray(posed.joints),
        "hand_faces": np.asarray(model.faces),
        "object_vertices": vertices.astype(np.float32),
        "object_faces": faces.astype(np.int32),
    }
    for name in ("image", "mask", "depth"):
        (folder / "build" / name).mkdir(parents=True, exist_ok=True)
    _write_pictures(scene, truth, folder / "build")
    _write_data(scene, truth, folder / "build")
    np.savez_compressed(folder / "ground_truth.npz", **truth)  # pyright: ignore[reportArgumentType]
    _write_obj(folder / "object.obj", vertices, faces)
    return truth


def grasp(model: HandModel, vertices: np.ndarray, faces: np.ndarray) -> Grasp:
    """Puts the object before the palm, then bends each finger until its skin touches it."""
    joints = rest_joints(model).astype(np.float64)
    palm = palm_direction(joints, model.side)
    across = joints[5] - joints[17]
    across = across - palm * (across @ palm)
    across /= np.linalg.norm(across)
    # The object's longest side runs across the palm, its shortest one out of it.
    sides = np.argsort(np.ptp(vertices, axis=0))
    rotation = np.zeros((3, 3))
    rotation[:, sides[0]], rotation[:, sides[2]] = palm, across
    rotation[:, sides[1]] = np.cross(rotation[:, sides[2]], rotation[:, sides[0]])
    rotation[:, sides[1]] *= np.sign(np.linalg.det(rotation))
    turned = vertices @ rotation.T
    knuckles = joints[[5, 9, 13, 17]].mean(axis=0)
    middle = knuckles + 0.15 * (joints[9] - joints[0])
    skin = (np.asarray(model.template) - middle) @ palm
    near = np.linalg.norm(np.asarray(model.template) - middle, axis=1) < 0.04
    place = middle + palm * (skin[near].max() + GAP - (turned @ palm).min())
    ask_centered = ClosedSurface(turned, faces, 4000)
    template = np.asarray(model.template, np.float64)
    for _ in range(20):
        least = ask_centered(template - place).min()
        if least >= 0:
            break
        place = place + palm * (GAP - least)

    def ask(points):
        return ask_centered(points - place)

    bend = across * (1 if model.side == "right" else -1)
    pose = np.zeros((len(model.joints), 3), np.float32)
    owner = np.argmax(np.asarray(model.weights), axis=1)
    for finger in range(5):
        chain = list(model.order[1 + 3 * finger : 4 + 3 * finger])
        axis = bend if finger else _thumb_axis(joints, palm, model.side)
        pose[chain] = _until_touch(model, pose, chain, axis, np.isin(owner, chain), ask)
    return Grasp(pose, rotation, place)


def _thumb_axis(joints: np.ndarray, palm: np.ndarray, side: str) -> np.ndarray:
    """The thumb bends about the axis that turns it toward the object before the palm."""
    bone = joints[3] - joints[1]
    toward = joints[[5, 9]].mean(axis=0) + 0.04 * palm - joints[3]
    axis = np.cross(bone, toward)
    return axis / np.linalg.norm(axis)


def _until_touch(model, pose, chain, axis, own, ask) -> np.ndarray:
    """The bend (by bisection) at which the finger's skin is just at the surface."""
    low, high = 0.0, CLOSED
    shift = np.zeros((1, 3), np.float32)
    for _ in range(8):
        middle = (low + high) / 2
        tried = pose.copy()
        tried[chain] = middle * axis
        skin = np.asarray(_pose(model, tried[None], shift, None).vertices[0])[own]
        low, high = (low, middle) if ask(skin).min() < 0 else (middle, high)
    return (low * axis).astype(np.float32)


def motion(scene: Scene, model: HandModel, held: Grasp) -> dict[str, np.ndarray]:
    """Poses of camera, hand and object in each frame; the world turns with neither."""
    t = np.arange(scene.frames) / scene.frames
    phase = np.random.default_rng(scene.seed).uniform(0, 2 * np.pi, 3)
    wobble = 0.2 * np.sin(2 * np.pi * t[:, None] + phase)
    spin = Rotation.from_rotvec(2 * np.pi * scene.turns * t[:, None] * [0, 1, 0])
    whole = spin * Rotation.from_rotvec(wobble)
    path = 0.01 * np.sin(2 * np.pi * t[:, None] + phase[::-1])
    in_hand = Rotation.from_rotvec(0.03 * np.sin(4 * np.pi * t[:, None]) * [0, 1, 0])
    grip = Rotation.from_matrix(held.rotation)
    object_to_world = np.tile(np.eye(4), (scene.frames, 1, 1))
    object_to_world[:, :3, :3] = (whole * grip * in_hand).as_matrix()
    object_to_world[:, :3, 3] = path
    pose = np.tile(held.pose, (scene.frames, 1, 1))
    pose[:, 0] = whole.as_rotvec()
    # A hand turns about its wrist, which need not be the origin of the model.
    wrist = np.asarray(model.joints[0], np.float64)
    shift = path - whole.apply(held.place - wrist) - wrist
    focal = 1.1 * max(scene.size)
    height, width = scene.size
    camera = np.eye(4)
    camera[:3, :3] = np.diag([1.0, -1, -1])
    camera[2, 3] = scene.distance
    return {
        "K": np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]),
        "world_to_camera": np.tile(camera, (scene.frames, 1, 1)),
        "object_to_world": object_to_world,
        "hand_pose_axis_angle": pose.astype(np.float32),
        "hand_trans": shift.astype(np.float32),
    }


def _write_pictures(scene: Scene, truth: dict, build: Path) -> None:
    random = np.random.default_rng(scene.seed + 1)
    backdrop = _backdrop(scene.size, random)
    things = truth["object_vertices"].astype(np.float64)
    faces, hand_faces = truth["object_faces"], truth["hand_faces"]
    paint = _paint(things, faces)
    for frame in range(scene.frames):
        pose = truth["object_to_world"][frame]
        moved = things @ pose[:3, :3].T + pose[:3, 3]
        hand = truth["hand_vertices"][frame].astype(np.float64)
        camera = truth["world_to_camera"][frame]
        seen = draw([(moved, faces), (hand, hand_faces)], truth["K"], camera, scene.size)
        colors = [paint, np.tile(SKIN, (len(hand_faces), 1))]
        image = _shade(seen, [(moved, faces), (hand, hand_faces)], colors, backdrop)
        levels = np.array([0, LEVELS["object"], LEVELS[scene.side]], np.uint8)
        depth = np.where(np.isfinite(seen.depth), seen.depth * 1e4, 0).astype(np.uint16)
        Image.fromarray(image).save(build / f"image/{frame:04d}.png")
        Image.fromarray(levels[seen.mesh + 1]).save(build / f"mask/{frame:04d}.png")
        Image.fromarray(depth).save(build / f"depth/{frame:04d}.png")


def _shade(seen: Drawn, meshes, colors, backdrop: np.ndarray) -> np.ndarray:
    """Colors under one lamp in the world and some light from everywhere."""
    image = backdrop.copy()
    lamp = np.array([0.3, 0.7, 0.65])
    for number, ((vertices, faces), color) in enumerate(zip(meshes, colors)):
        normals = vertex_normals(vertices, faces)[faces].mean(axis=1)
        lit = color * (0.45 + 0.55 * np.clip(normals @ lamp, 0, 1))[:, None]
        here = seen.mesh == number
        image[here] = lit[seen.face[here]]
    return (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8)


def _paint(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Bands of color that tell the sides of an object apart, by face."""
    place = vertices[faces].mean(axis=1) / np.abs(vertices).max()
    return 0.5 + 0.35 * np.sin(
        5 * place @ np.array([[1, 2, 0], [2, 0, 1], [0, 1, 2.0]]) + [0, 2, 4]
    )


def _backdrop(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    waves = random.uniform(4, 12, (3, 2))
    return np.stack([0.3 + 0.1 * np.sin(a * x + b * y) for a, b in waves], axis=-1)


def _write_data(scene: Scene, truth: dict, build: Path) -> None:
    """`data.npy`, with noise and missing poses where the scene asks for them."""
    random = np.random.default_rng(scene.seed + 2)
    count, k4 = scene.frames, np.eye(4)
    k4[:3, :3] = truth["K"]
    scale = np.diag([scene.distance / CAMERA_AT] * 3 + [1.0])
    cameras: dict[str, np.ndarray] = {}
    for frame, camera in enumerate(truth["world_to_camera"]):
        cameras[f"world_mat_{frame}"], cameras[f"scale_mat_{frame}"] = k4 @ camera, scale
    pose = truth["hand_pose_axis_angle"].reshape(count, -1).astype(np.float64)
    pose = pose + random.normal(size=pose.shape) * scene.pose_noise
    shift = truth["hand_trans"] + random.normal(size=(count, 3)) * scene.shift_noise
    lost = random.permutation(count)[: round(scene.missing * count)]
    pose[lost], shift[lost] = np.nan, np.nan
    turn = Rotation.from_matrix(truth["object_to_world"][:, :3, :3])
    turn = Rotation.from_rotvec(random.normal(size=(count, 3)) * scene.pose_noise) * turn
    place = truth["object_to_world"][:, :3, 3]
    place = place + random.normal(size=(count, 3)) * scene.shift_noise
    vertices = truth["object_vertices"].astype(np.float64)
    radius = np.abs(vertices).max()
    points = sample_surface(vertices, truth["object_faces"], 2000, scene.seed)
    hand = {"hand_poses": pose, "hand_trans": shift, "mean_shape": np.zeros(10)}
    data = {
        "seq_name": f"{Path(scene.object).stem}_{scene.side}",
        "cameras": cameras,
        "scene_bounding_sphere": SPHERE,
        "max_radius_ratio": SPHERE / CAMERA_AT,
        "normalize_shift": np.zeros(3),
        "entities": {
            scene.side: hand | {"hand_model": scene.hand},
            "object": {
                "obj_scale": 1.0,
                "norm_mat": np.diag([1 / radius] * 3 + [1.0]),
                "pts.cano": (points / radius).astype(np.float32),
                "object_poses": np.concatenate([turn.as_rotvec(), place], axis=1),
            },
        },
    }
    np.save(build / "data.npy", np.array(data, object), allow_pickle=True)
    (build / "corres.txt").write_text("".join(f"{frame:04d}.png\n" for frame in range(count)))


def _write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices]
    lines += ["f {} {} {}".format(*(face + 1)) for face in faces]
    path.write_text("\n".join(lines) + "\n")


SMOKE = Scene()
DEVELOPMENT = replace(SMOKE, frames=60, size=(120, 160))

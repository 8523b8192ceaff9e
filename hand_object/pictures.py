"""Pictures of a reconstruction on the host: overlays, side by side, contact, turning views.

Parts are drawn by the z-buffer of `data.rasterizer`, lit by a lamp at the camera. All pictures are
uint8 [H, W, 3].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hand_object.data.rasterizer import draw
from hand_object.hands.mesh import vertex_normals
from hand_object.meshing import Mesh
from hand_object.reconstruction import Reconstruction

PLAIN = {"right": (217, 158, 128), "left": (158, 173, 230), "object": (115, 184, 158)}
OPACITY = 0.75  # of an overlay
BACKGROUND = 40  # gray behind a view without a picture
FIELD_OF_VIEW = 0.7  # rad, of turning views
AWAY = 3.6  # radii of the object: distance of the camera of a turning view
Parts = Mapping[str, tuple[np.ndarray, Mesh]]


def drawn_parts(
    parts: Parts,
    tints: Mapping[str, np.ndarray],
    intrinsics: np.ndarray,
    world_to_camera: np.ndarray,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Picture, and [H, W] bool where a part is seen.

    Args:
      parts: of `Reconstruction.parts`.
      tints: of each part [V, 3] in 0..255.
    """
    names = list(parts)
    seen = draw(
        [(parts[name][0], parts[name][1].faces) for name in names],
        intrinsics,
        world_to_camera,
        size,
    )
    picture = np.full((*size, 3), float(BACKGROUND))
    for number, name in enumerate(names):
        vertices, mesh = parts[name]
        normals = vertex_normals(vertices, mesh.faces) @ world_to_camera[:3, :3].T
        places = vertices @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
        toward = places / np.linalg.norm(places, axis=1, keepdims=True)
        light = 0.35 + 0.65 * np.abs(np.einsum("va,va->v", normals, toward))
        lit = (tints[name] * light[:, None])[mesh.faces].mean(axis=1)
        here = seen.mesh == number
        picture[here] = lit[seen.face[here]]
    return np.rint(picture.clip(0, 255)).astype(np.uint8), seen.mesh >= 0


def tints_of(parts: Parts, plain: bool = False) -> dict[str, np.ndarray]:
    """Colors of vertices: learned ones, or where there are none one color for each part."""
    return {
        name: np.asarray(mesh.colors, np.float64)
        if mesh.colors is not None and not plain
        else np.tile(np.array(PLAIN[name], np.float64), (len(mesh.vertices), 1))
        for name, (_, mesh) in parts.items()
    }


def heat_tints(heat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gray without contact, then from blue (seldom) over green to red (always)."""
    tints = {}
    for name, share in heat.items():
        t = 0.25 + 0.6 * share[:, None]
        warm = np.clip(1.5 - np.abs(4 * t - np.array([3.0, 2.0, 1.0])), 0, 1)
        tints[name] = 255 * np.where(share[:, None] > 0, warm, 0.55)
    return tints


def overlay(found: Reconstruction, frame: int, image: np.ndarray) -> np.ndarray:
    """The parts over the input frame, in one color each."""
    parts = found.parts(frame)
    camera = found.intrinsics[frame], found.world_to_camera[frame]
    picture, seen = drawn_parts(parts, tints_of(parts, plain=True), *camera, image.shape[:2])
    mixed = OPACITY * picture + (1 - OPACITY) * image
    return np.where(seen[..., None], np.rint(mixed).astype(np.uint8), image)


def turned_view(
    found: Reconstruction,
    frame: int,
    angle: float,
    size: tuple[int, int],
    tints: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """The parts of a frame from the side: the camera goes round them by an angle (rad).

    The axis is the camera's own vertical one, so that 0 is the direction of the input.
    """
    parts = found.parts(frame)
    if not parts:
        return np.full((*size, 3), BACKGROUND, np.uint8)
    corners = parts["object"][0] if "object" in parts else next(iter(parts.values()))[0]
    center = (corners.min(axis=0) + corners.max(axis=0)) / 2
    radius = float(np.linalg.norm(np.ptp(corners, axis=0))) / 2
    camera = _around(found.world_to_camera[frame], center, angle, AWAY * radius)
    focal = max(size) / (2 * np.tan(FIELD_OF_VIEW / 2))
    k = np.array([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1]])
    own = tints_of(parts) if tints is None else {name: tints[name] for name in parts}
    return drawn_parts(parts, own, k, camera, size)[0]


def _around(
    world_to_camera: np.ndarray, center: np.ndarray, angle: float, away: float
) -> np.ndarray:
    """The camera turned about its vertical axis through a center, which it looks at."""
    right, down, _ = world_to_camera[:3, :3]
    eye = -world_to_camera[:3, :3].T @ world_to_camera[:3, 3]
    toward = center - eye
    # About the vertical axis (Rodrigues); then the camera stands on the line to the center.
    cos, sin = np.cos(angle), np.sin(angle)
    toward = toward * cos + np.cross(down, toward) * sin + down * (down @ toward) * (1 - cos)
    forward = toward / np.linalg.norm(toward)
    right = np.cross(down, forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    camera = np.eye(4)
    camera[:3, :3] = rotation
    camera[:3, 3] = -rotation @ (center - away * forward)
    return camera


def turntable(found: Reconstruction, frame: int, size: tuple[int, int], count: int) -> np.ndarray:
    """[count, H, W, 3]: once around one frame."""
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([turned_view(found, frame, angle, size) for angle in angles.tolist()])


def side_by_side(
    found: Reconstruction, frame: int, image: np.ndarray | None, turns: float = 1.0
) -> np.ndarray:
    """Input, overlay, and a view that goes round once over the sequence."""
    angle = 2 * np.pi * turns * frame / max(len(found), 1)
    size = found.size if image is None else (image.shape[0], image.shape[1])
    shown = [] if image is None else [image, overlay(found, frame, image)]
    return np.concatenate([*shown, turned_view(found, frame, angle, size)], axis=1)


def contact_picture(
    found: Reconstruction, heat: Mapping[str, np.ndarray], frame: int, size: tuple[int, int]
) -> np.ndarray:
    """Contact over the whole sequence, on the meshes of one frame: together, then object alone."""
    tints = heat_tints(heat)
    views = [turned_view(found, frame, angle, size, tints) for angle in (0.0, np.pi)]
    alone = replace(found, hands={})
    views += [turned_view(alone, frame, angle, size, tints) for angle in (0.0, np.pi)]
    return np.concatenate(views, axis=1)


def sheet(found: Reconstruction, heat: Mapping[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Four overlays, evenly spread over the frames, above four views of the contact.

    Args:
      images: [T, H, W, 3] uint8 input frames.
    """
    frames = np.linspace(0, len(found) - 1, 4).round().astype(int).tolist()
    overlays = np.concatenate([overlay(found, f, images[f]) for f in frames], axis=1)
    return np.concatenate([overlays, contact_picture(found, heat, frames[1], found.size)])

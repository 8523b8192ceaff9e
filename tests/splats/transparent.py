"""A sphere of one color that hovers in the air, as a Blender data set of RGBA images.

What is seen and how opaque it is are closed forms, so that every score has an exact answer.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from splats.video.camera_path import orbit

COLOR = (204, 102, 51)
RADIUS, DISTANCE, ANGLE = 0.7, 4.0, 0.6  # of the sphere; of the cameras; their field of view


def coverage(width: int, samples: int = 8) -> np.ndarray:
    """Share of each pixel [width,width] that a camera pointed at the sphere's center sees of it."""
    focal = 0.5 * width * samples / np.tan(0.5 * ANGLE)
    side = np.arange(width * samples) + 0.5 - 0.5 * width * samples
    tangent = np.hypot(side[None, :], side[:, None]) / focal
    inside = tangent < RADIUS / np.sqrt(DISTANCE**2 - RADIUS**2)
    return inside.reshape(width, samples, width, samples).mean(axis=(1, 3))


def write_transparent_scene(folder: Path, views: int = 12, width: int = 32) -> Path:
    """`transforms_{train,test}.json` with every third view held out, and their images."""
    alpha = np.rint(255 * coverage(width)).astype(np.uint8)
    # The color of what is fully transparent is arbitrary: magenta, to be seen where it leaks.
    color = np.where(alpha[..., None] > 0, np.array(COLOR), np.array([255, 0, 255]))
    rgba = np.concatenate([color, alpha[..., None]], axis=2).astype(np.uint8)
    frames: dict[str, list] = {"train": [], "test": []}
    for number, pose in enumerate(orbit(views, radius=DISTANCE, elevation=25.0)):
        part = "train" if number % 3 else "test"
        name = f"{part}/r_{number}"
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgba).save(folder / f"{name}.png")
        # Ours looks along +z with y down, Blender's along -z with y up.
        camera_to_world = np.linalg.inv(pose) @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames[part].append({"file_path": name, "transform_matrix": camera_to_world.tolist()})
    for part, listed in frames.items():
        content = {"camera_angle_x": ANGLE, "frames": listed}
        (folder / f"transforms_{part}.json").write_text(json.dumps(content))
    return folder

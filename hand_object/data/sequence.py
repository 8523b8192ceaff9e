"""`Sequence`: frames, cameras, masks and first poses of a video, whatever they were read from.

The world is in meters; its origin is the center of the bounding sphere, and the scene is the world
times `scene_scale`. Cameras are OpenCV's (x right, y down, z forward); integer pixel coordinates
are centers of pixels. Classes of a mask: background 0, object 1, right hand 2, left hand 3, and
`UNKNOWN` of pixels that no mask tells of. Letters: T frames, J joints, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from hand_object.data.picture_files import read_color, read_gray
from training.errors import InputError

BACKGROUND, OBJECT, RIGHT, LEFT, UNKNOWN = 0, 1, 2, 3, 255
CLASS_OF = {"object": OBJECT, "right": RIGHT, "left": LEFT}
# Gray levels of HOLD's masks: up to which level a class goes, in the order of the classes.
_BANDS = np.array([25, 100, 200])


@dataclass(frozen=True)
class HandTrack:
    """A hand over T frames: axis-angles [T, J, 3] rad, translation [T, 3] m, shape [S].

    `valid` [T] is False in frames without this hand; poses there are those of the nearest frame
    that has it. `model` names the model that the poses are of, where the data says so. Where only
    meshes are known, `vertices` [T, V, 3] has them in the world, and J is 0 until a model is
    registered to them.
    """

    pose: np.ndarray
    translation: np.ndarray
    shape: np.ndarray
    valid: np.ndarray
    model: str | None = None
    vertices: np.ndarray | None = None


@dataclass(frozen=True)
class ObjectTrack:
    """An object over T frames; object -> world is rotation (scale x) + translation.

    Attributes:
      axis_angle, translation: [T, 3] rad and m.
      valid: [T].
      points: [N, 3] of a first guess of the surface, canonical (max-abs about 1).
      center, radius: [3] and number: canonical times radius plus center is the raw object.
      scale: meters per raw unit.
    """

    axis_angle: np.ndarray
    translation: np.ndarray
    valid: np.ndarray
    points: np.ndarray
    center: np.ndarray
    radius: float
    scale: float = 1.0


@dataclass(frozen=True)
class Sequence:
    """Frames are decoded when they are asked for.

    Attributes:
      name: of the sequence.
      images: [T] paths.
      masks: [T] paths, None where a frame has no mask.
      size: (height, width) that frames are given in.
      file_size: (height, width) of the files.
      intrinsics: [T, 3, 3] for `size`.
      world_to_camera: [T, 4, 4].
      hands: by side.
      object: None of a sequence without one.
      scene_scale: scene units per meter.
      sphere: radius of the bounding sphere, scene units.
      classes: of gray levels of masks; None: HOLD's bands.
    """

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    size: tuple[int, int]
    file_size: tuple[int, int]
    intrinsics: np.ndarray
    world_to_camera: np.ndarray
    hands: Mapping[str, HandTrack]
    object: ObjectTrack | None
    scene_scale: float
    sphere: float
    classes: Mapping[int, int] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8 of a frame.

        Raises:
          InputError: the file is missing, damaged, or of another size than the first frame.
        """
        path = self.images[index]
        picture = read_color(path)
        if picture.shape[:2] != self.file_size:
            raise InputError(
                f"{path} is {_wide_high(picture)} but the first frame is {self.file_size[1]} x "
                f"{self.file_size[0]}; all frames of a sequence have one size"
            )
        return _resized(picture, self.size, Image.Resampling.BOX)

    def mask(self, index: int) -> np.ndarray:
        """[H, W] uint8 classes of a frame; `UNKNOWN` throughout where it has no mask.

        A mask may be of another size than its image, as segmenters shrink what they are given.

        Raises:
          InputError: the file is damaged, or has another shape than the image.
        """
        path = self.masks[index]
        if path is None:
            return np.full(self.size, UNKNOWN, np.uint8)
        levels = read_gray(path)
        if not _same_shape(levels.shape[:2], self.file_size):
            raise InputError(
                f"the mask {path} is {_wide_high(levels)}, which is another shape than that of its "
                f"image, {self.file_size[1]} x {self.file_size[0]}; make masks of the same "
                "picture, not of a crop of it"
            )
        levels = _resized(levels, self.size, Image.Resampling.NEAREST)
        return mask_classes(levels, self.classes)

    def camera_centers(self) -> np.ndarray:
        """[T, 3] meters."""
        rotation, shift = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
        return -np.einsum("tba,tb->ta", rotation, shift)

    def resized(self, longest: int) -> Sequence:
        """The same with its longer side of `longest` pixels; never larger than the files."""
        factor = min(1.0, longest / max(self.file_size))
        height, width = (max(1, round(side * factor)) for side in self.file_size)
        scale = np.array([width / self.size[1], height / self.size[0]])
        intrinsics = self.intrinsics.copy()
        intrinsics[:, :2] *= scale[:, None]
        # Centers of pixels are whole numbers: the picture begins at -1/2.
        intrinsics[:, :2, 2] += 0.5 * scale - 0.5
        return replace(self, size=(height, width), intrinsics=intrinsics)


def mask_classes(levels: np.ndarray, classes: Mapping[int, int] | None = None) -> np.ndarray:
    """Gray levels -> classes, uint8.

    Args:
      classes: of levels, all others are background; None: HOLD's 0 background, 50 object, 150
        right, 250 left, and levels near them.
    """
    if classes is None:
        return np.digitize(levels, _BANDS).astype(np.uint8)
    table = np.zeros(256, np.uint8)
    for level, number in classes.items():
        table[level] = number
    return table[levels]


def _same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one is the other made smaller or larger, up to a pixel of the smaller one."""
    (height, width), (other_height, other_width) = size, other
    slack = max(height, width, other_height, other_width)
    return abs(height * other_width - width * other_height) <= slack


def _wide_high(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"


def filled(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Rows that are not valid replaced by the nearest valid row; zeros if there is none."""
    if not valid.any():
        return np.zeros_like(values)
    rows = np.flatnonzero(valid)
    nearest = rows[np.argmin(np.abs(np.arange(len(values))[:, None] - rows[None]), axis=1)]
    return values[nearest]


def _resized(picture: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    if picture.shape[:2] == size:
        return picture
    height, width = size
    return np.array(Image.fromarray(picture).resize((width, height), how))

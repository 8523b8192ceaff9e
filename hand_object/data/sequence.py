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

from training.errors import InputError

BACKGROUND, OBJECT, RIGHT, LEFT, UNKNOWN = 0, 1, 2, 3, 255
CLASS_OF = {"object": OBJECT, "right": RIGHT, "left": LEFT}
# Gray levels of HOLD's masks: up to which level a class goes, in the order of the classes.
_BANDS = np.array([25, 100, 200])


@dataclass(frozen=True)
class HandTrack:
    """A hand over T frames: axis-angles [T, J, 3] rad, translation [T, 3] m, shape [S].

    `valid` [T] is False in frames without this hand; poses there are those of the nearest frame
    that has it. `model` names the model that the poses are of, where the data says so.
    """

    pose: np.ndarray
    translation: np.ndarray
    shape: np.ndarray
    valid: np.ndarray
    model: str | None = None


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

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8 of a frame.

        Raises:
          InputError: the file is missing, damaged, or of another size than the first frame.
        """
        picture = _opened(self.images[index], self.file_size).convert("RGB")
        if self.size != self.file_size:
            height, width = self.size
            picture = picture.resize((width, height), Image.Resampling.BOX)
        return np.array(picture)

    def mask(self, index: int) -> np.ndarray:
        """[H, W] uint8 classes of a frame; `UNKNOWN` throughout where it has no mask.

        A mask may be of another size than its image, as segmenters shrink what they are given.
        """
        path = self.masks[index]
        if path is None:
            return np.full(self.size, UNKNOWN, np.uint8)
        picture = _opened(path, None)
        if picture.mode not in ("L", "P", "I", "1"):
            picture = picture.convert("L")
        height, width = self.size
        picture = picture.resize((width, height), Image.Resampling.NEAREST)
        return mask_classes(np.array(picture))

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


def mask_classes(levels: np.ndarray) -> np.ndarray:
    """Gray levels (0 background, 50 object, 150 right, 250 left) -> classes, uint8."""
    return np.digitize(levels, _BANDS).astype(np.uint8)


def filled(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Rows that are not valid replaced by the nearest valid row; zeros if there is none."""
    if not valid.any():
        return np.zeros_like(values)
    rows = np.flatnonzero(valid)
    nearest = rows[np.argmin(np.abs(np.arange(len(values))[:, None] - rows[None]), axis=1)]
    return values[nearest]


def _opened(path: Path, size: tuple[int, int] | None) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError:
        raise InputError(f"there is no frame {path}; extract the frames again") from None
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path} is no readable picture ({error}); extract it again") from None
    if size is not None and picture.size[::-1] != size:
        raise InputError(
            f"{path} is {picture.width} x {picture.height} but the first frame is {size[1]} x "
            f"{size[0]}; all frames of a sequence have one size"
        )
    return picture

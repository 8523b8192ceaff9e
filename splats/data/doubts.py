"""What may be wrong with a capture although it can be read: each doubt is one sentence.

Masks that belong to no image, several models of which one is taken, cameras without parallax, few
views. Doubts are told before the training; only masks that cannot have any effect are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from splats.data.images import SUFFIXES
from training.errors import InputError

# Of the distance to the scene, between the cameras that are farthest apart: about one degree.
LEAST_PARALLAX = 0.02
# Of the distance to the origin: where a center is computed from a rounded rotation, or was written
# with single precision, it does not come out the same for cameras at one place.
ROUNDING = 1e-6
FEW_VIEWS = 30  # below it a radiance field of photographs tends to learn its views by heart


def of_masks(folder: Path, used: Mapping[str, Path], names: Sequence[str]) -> list[str]:
    """Doubts about a folder of masks.

    Args:
      folder: where masks of the same name as their image are looked for; may not exist.
      used: the masks that were found, by name of the view.
      names: of the views that have an image.

    Raises:
      InputError: there are masks, and none belongs to a view.
    """
    files = [path for path in folder.rglob("*") if path.suffix in SUFFIXES]
    if not files:
        return []
    inside = set(files) & set(used.values())
    unused = sorted(str(path.relative_to(folder)) for path in set(files) - inside)
    if not inside:
        raise InputError(
            f"None of the {len(files)} masks in {folder} belongs to an image (first: {unused[0]}; "
            f"expected for the first image: {_mask_name(names[0])}); name each as its image, or "
            "name another folder (config.scene.masks, --masks)."
        )
    doubts = []
    if unused:
        doubts.append(
            f"{len(unused)} masks in {folder.name}/ belong to no image and are not used "
            f"(first: {unused[0]})"
        )
    bare = [name for name in names if name not in used]
    if bare:
        doubts.append(
            f"only {len(names) - len(bare)} of {len(names)} images have a mask in {folder.name}/ "
            f"(first without: {_mask_name(bare[0])}); of the others every pixel is compared"
        )
    return doubts


def _mask_name(view: str) -> str:
    return str(Path(view).with_suffix(".png"))


def of_parallax(world_to_camera: np.ndarray, points: np.ndarray) -> list[str]:
    """A doubt where all cameras stand at nearly one place, measured by the distance to the scene.

    Args:
      world_to_camera: [V,4,4] rigid.
      points: [N,3] of the same world; without any, only cameras at exactly one place are found.
    """
    rotations, translations = world_to_camera[:, :3, :3], world_to_camera[:, :3, 3]
    centers = -np.einsum("vji,vj->vi", rotations, translations)
    middle = centers.mean(axis=0)
    spread = 2 * float(np.linalg.norm(centers - middle, axis=1).max())
    distance = float(np.median(np.linalg.norm(points - middle, axis=1))) if len(points) else 0.0
    least = LEAST_PARALLAX * distance or ROUNDING * float(np.linalg.norm(middle))
    if len(centers) < 2 or spread > least:
        return []
    apart = f"within {spread / distance:.1%} of the distance to it" if distance else "at one place"
    return [
        f"all cameras see the scene from {apart}: without parallax the depth of nothing can be "
        "learned, and new views will be wrong; photograph it again while walking around"
    ]


def of_count(training_views: int) -> list[str]:
    """A doubt where there are few views to learn from."""
    if training_views >= FEW_VIEWS:
        return []
    return [
        f"only {training_views} views are trained on: densification may fit them by heart; compare "
        "held-out with training PSNR, and use the best checkpoint of held-out views (--step best)"
    ]

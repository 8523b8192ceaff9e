"""The table of the report that has every held-out view with its scores, the worst first.

Where a mean has improved one can still see here what it hides: a view that is blurred, exposed
otherwise, or registered wrongly. The worst have a picture each, small, since an evaluation of a
large scene would else write hundreds of megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from splats.data.scene import Scene
from training.verdict import Table

PICTURED = 12  # of the worst views
WIDTH = 900  # pixels of a picture at most: photograph, rendering and error side by side


def held_out_table(scene: Scene, views: np.ndarray, scores: Sequence[dict[str, float]]) -> Table:
    """One row a view.

    Args:
      views: indices into the scene.
      scores: of each, in that order; the PSNR decides which is worst.
    """
    ordered = worst_first(scores)
    names = [name for name in scores[0] if name != "pixels"]
    rows = [(scene.names[int(views[at])], *(scores[at][name] for name in names)) for at in ordered]
    pictures = [small_name(scene, int(views[at])) for at in ordered[:PICTURED]]
    pictures += [""] * (len(rows) - len(pictures))
    title = "Held-out views, the worst first (photograph, rendering, error times 4)"
    return Table(title, ("view", *names), rows, tuple(pictures))


def worst_first(scores: Sequence[dict[str, float]]) -> list[int]:
    """Positions in `scores`, by rising PSNR; what is no number comes first."""
    psnr = [scores[at]["psnr"] for at in range(len(scores))]
    return sorted(range(len(psnr)), key=lambda at: (np.isfinite(psnr[at]), psnr[at], at))


def small_name(scene: Scene, view: int) -> str:
    """Name of the small picture of a view, without ending."""
    stem = scene.names[view].rpartition(".")[0] or scene.names[view]
    return f"held_out_{stem.replace('/', '_')}"


def small(picture: np.ndarray) -> np.ndarray:
    """A uint8 [height,width,3] picture no wider than `WIDTH`."""
    image = Image.fromarray(picture)
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    return np.asarray(image)

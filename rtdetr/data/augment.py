"""Random changes of one training example, in the published order.

Color, zoom-out and crop ("strong") or four pictures in one, then flips and the canvas, then a blend
with another example. Zoom-out, crop, flips and resize only decide which part of the image lands
where: its pixels are resampled once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rtdetr.config import AugmentConfig
from rtdetr.data.color import draw_color, recolored
from rtdetr.data.crop import cropped
from rtdetr.data.geometry import Size, Window, placement, whole
from rtdetr.data.mixup import mixed
from rtdetr.data.mosaic import PARTS, mosaic
from rtdetr.data.picture import Canvas, Picture, placed
from rtdetr.data.zoom import zoomed_out

# Draws a picture from the whole data set.
Partner = Callable[[np.random.Generator], Picture]


@dataclass(frozen=True)
class Plan:
    """What happens at an update.

    Attributes:
      canvas: its size.
      strong: color, zoom-out and crop are on.
      mixing: mosaic and mixup are on.
    """

    canvas: Size
    strong: bool
    mixing: bool


def augmented(
    picture: Picture,
    partner: Partner,
    plan: Plan,
    config: AugmentConfig,
    resize: str,
    generator: np.random.Generator,
) -> Canvas:
    """A training example; a pure function of the pictures and the generator's state.

    Args:
      partner: called for the other pictures of a mosaic or a mixup.
      resize: "squash" or "letterbox".
    """
    first = _alone(picture, partner, plan, config, resize, generator)
    if not plan.mixing or generator.random() >= config.mixup:
        return first
    second = _alone(partner(generator), partner, plan, config, resize, generator)
    return mixed(first, second, generator)


def unchanged(picture: Picture, canvas: Size, resize: str, fill: int) -> Canvas:
    """The example as evaluation sees it."""
    return placed(picture, placement(picture.size, canvas, resize), fill)


def _alone(
    picture: Picture,
    partner: Partner,
    plan: Plan,
    config: AugmentConfig,
    resize: str,
    generator: np.random.Generator,
) -> Canvas:
    """Everything but the blend."""
    several = plan.mixing and generator.random() < config.mosaic
    if several:
        parts = [picture, *(partner(generator) for _ in range(PARTS - 1))]
        picture = mosaic(parts, plan.canvas, resize, generator, config.fill)
    window = whole(picture.size)
    if plan.strong:
        pixels = recolored(picture.pixels, draw_color(generator, config.color))
        picture = dataclasses.replace(picture, pixels=pixels)
        if not several:
            window, picture = _windowed(picture, config, generator)
    place = placement(
        picture.size,
        plan.canvas,
        resize,
        window,
        mirrored=bool(generator.random() < config.flip),
        upside_down=bool(generator.random() < config.vertical_flip),
    )
    return placed(picture, place, config.fill)


def _windowed(
    picture: Picture, config: AugmentConfig, generator: np.random.Generator
) -> tuple[Window, Picture]:
    """What a zoom-out and a crop show, and the picture with the objects that the crop keeps."""
    wide = zoomed_out(picture.size, generator, config.zoom_out, config.zoom_largest)
    window, kept = cropped(wide, picture.boxes.values, generator, config.crop)
    return window, Picture(picture.pixels, picture.boxes[kept], picture.labels[kept])

"""The one color behind everything: of renderings and of transparent photographs alike.

Where the two differ, Gaussians learn to paint the difference: a shell around the object.
"""

from __future__ import annotations

import string

from training.errors import ConfigError

Color = tuple[float, float, float]  # sRGB in [0, 1]
BLACK: Color = (0.0, 0.0, 0.0)
WHITE: Color = (1.0, 1.0, 1.0)
AUTO = "auto"
_NAMED = {"black": BLACK, "white": WHITE}


def background_color(text: str, kind: str) -> Color:
    """The color that `scene.background` names.

    Args:
      text: `auto`, `black`, `white` or `#rrggbb`.
      kind: of the scene; `auto` is white for Blender scenes, whose published scores are on white,
        and black for all others.

    Raises:
      ConfigError: it is none of them.
    """
    if text == AUTO:
        return WHITE if kind == "blender" else BLACK
    if text in _NAMED:
        return _NAMED[text]
    digits = text.removeprefix("#")
    if len(text) != 7 or len(digits) != 6 or not set(digits) <= set(string.hexdigits):
        raise ConfigError(
            f"background = {text!r} is no color; give auto, black, white or #rrggbb "
            "(a new color for each view is config.losses.random_background)"
        )
    red, green, blue = bytes.fromhex(digits)
    return red / 255, green / 255, blue / 255

"""Frames to an MP4 file (H.264), by the optional package imageio-ffmpeg."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import ConfigError, InputError

QUALITY = 8  # of imageio-ffmpeg, 0 to 10


def require_encoder() -> None:
    """Raises ConfigError where imageio-ffmpeg is not installed."""
    try:
        importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise ConfigError(
            "an .mp4 output needs the package imageio-ffmpeg (pip install podvision[video]); "
            "give a folder as --output to get PNG frames instead"
        ) from error


@contextlib.contextmanager
def open_film(
    file: Path, width: int, height: int, frames_per_second: float
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame, uint8 [height, width, 3], to a film.

    The encoder takes even sizes only: odd ones get their last row or column twice.

    Raises:
      ConfigError: no imageio-ffmpeg.
      InputError: the encoder failed.
    """
    require_encoder()
    import imageio_ffmpeg

    fps: Any = frames_per_second  # declared as int there; fractions are passed on
    size = (width + width % 2, height + height % 2)
    writer = imageio_ffmpeg.write_frames(
        str(file), size, fps=fps, quality=QUALITY, macro_block_size=1
    )
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    try:
        writer.send(None)
        yield lambda frame: writer.send(np.ascontiguousarray(np.pad(frame, padding, "edge")))
    except OSError as error:
        reason = str(error).strip().splitlines()[-1:] or ["unknown reason"]
        raise InputError(f"the film {file} cannot be written ({reason[0]})") from error
    finally:
        writer.close()

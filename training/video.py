"""Frames to an MP4 file (H.264), by the ffmpeg of the optional package imageio-ffmpeg.

The program is started directly: the package's own writer forks in a way that JAX warns about.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from training.errors import ConfigError, InputError

QUALITY = "18"  # constant rate factor of x264: 0 lossless, 23 the encoder's default


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
def open_video(
    file: Path, width: int, height: int, frames_per_second: float
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame, uint8 [height, width, 3], to a video.

    The encoder takes even sizes only: odd ones get their last row or column twice.

    Raises:
      ConfigError: no imageio-ffmpeg.
      InputError: the encoder failed.
    """
    require_encoder()
    import imageio_ffmpeg

    size = f"{width + width % 2}x{height + height % 2}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{frames_per_second}"]
    # yuv420p is what browsers play; it halves both sides of the color, hence the even sizes.
    target = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", QUALITY, "-f", "mp4", str(file)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, "-i", "-"]
    # A session of its own, so that Ctrl-C in a terminal does not end it before the last frame.
    encoder = subprocess.Popen(
        [*command, *target], stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    pipe = encoder.stdin
    assert pipe is not None
    padding = ((0, height % 2), (0, width % 2), (0, 0))

    def add(frame: np.ndarray) -> None:
        with contextlib.suppress(BrokenPipeError):  # the encoder's own words follow below
            pipe.write(np.pad(frame, padding, "edge").tobytes())

    try:
        yield add
    finally:
        # Closes the pipe, which ends the video, and reads stderr meanwhile, so that neither blocks.
        _, said = encoder.communicate()
    if encoder.returncode:
        words = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise InputError(f"the video {file} cannot be written ({words[-1]})")

"""Reader of films (`.avi`): every picture is a B-scan. Nothing else than gray values is in them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from jepa3d.data.plain import Spacing, plain_volume
from jepa3d.data.volume import (
    MAX_FRAME_PIXELS,
    MAX_VOXELS,
    SkipReason,
    SkipVolume,
    Volume,
)


def read_film(path: Path, minimum_frames: int, spacing_mm: Spacing | None) -> Volume:
    """Reads all pictures of a film as gray values.

    Raises:
      SkipVolume: it cannot be decoded, ends early, or is longer than any scan.
    """
    if path.stat().st_size == 0:
        raise SkipVolume(SkipReason.EMPTY_FILE, "the file has 0 bytes")
    # It would write its own complaints to the terminal; what matters of them is a reason here.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        declared = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
        pictures: list[np.ndarray] = []
        while (read := film.read())[0]:
            picture = read[1] if read[1].ndim == 2 else cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY)
            pictures.append(np.asarray(picture, np.uint8))
            if picture.size > MAX_FRAME_PIXELS or len(pictures) * picture.size > MAX_VOXELS:
                raise SkipVolume(SkipReason.TOO_LARGE, f"over {len(pictures)} pictures")
    except cv2.error as error:
        raise SkipVolume(SkipReason.CORRUPT_FRAMES, f"cannot be decoded ({error})") from error
    finally:
        film.release()
    if not pictures:
        raise SkipVolume(SkipReason.CORRUPT_FRAMES, "no picture of the film can be decoded")
    if len(pictures) < declared:
        raise SkipVolume(
            SkipReason.TRUNCATED_PIXEL_DATA, f"{len(pictures)} of {declared} pictures decode"
        )
    notes = {"frame_order": "stored"}
    return plain_volume(np.stack(pictures), path, "film", minimum_frames, spacing_mm, notes)

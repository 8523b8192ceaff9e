"""A crop that some object fills well enough (SSD, Liu et al. 2016; torchvision's `RandomIoUCrop`).

A least IoU of crop and object is drawn, then crops are tried until one has it with an object whose
center is inside. Objects with their center outside are no longer objects of the picture, although a
part of them may show: that is how it is published.
"""

from __future__ import annotations

import numpy as np

from rtdetr.data.geometry import Window

LEAST_IOU = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # 1 stands for "no crop"
SIDES = (0.3, 1.0)  # of the crop, over those of the window
ASPECTS = (0.5, 2.0)  # width over height
TRIALS = 40  # crops for one least IoU
# Draws of a least IoU; each ends the search with a chance of 1 in 7 at least.
ROUNDS = 100


def cropped(
    window: Window, corners_Nx4: np.ndarray, generator: np.random.Generator, probability: float
) -> tuple[Window, np.ndarray]:
    """A part of the window.

    Args:
      window: what is shown so far.
      corners_Nx4: objects, left, top, right, bottom in the coordinates of the window.
      probability: of a search for a crop; it may still find none.

    Returns:
      The new window, and which objects it keeps, bool [N].
    """
    everything = window, np.ones(len(corners_Nx4), bool)
    # Without an object no crop can be good, and the search would end with the whole at last.
    if generator.random() >= probability or not len(corners_Nx4):
        return everything
    for _ in range(ROUNDS):
        least = LEAST_IOU[int(generator.integers(len(LEAST_IOU)))]
        if least >= 1:
            break
        crops_Tx4 = _trials(window, generator)
        inside_TxN = _centers_inside(crops_Tx4, corners_Nx4)
        iou_TxN = np.where(inside_TxN, _iou(crops_Tx4, corners_Nx4), -1.0)
        good = _well_shaped(crops_Tx4) & (iou_TxN.max(axis=1) >= least)
        if good.any():
            chosen = int(good.argmax())  # the first one
            return Window(*(int(edge) for edge in crops_Tx4[chosen])), inside_TxN[chosen]
    return everything


def _trials(window: Window, generator: np.random.Generator) -> np.ndarray:
    """Random windows in whole px inside of a window, int64 [TRIALS, 4]."""
    sides = np.array(window.size[::-1])  # width, height
    lengths = (sides * generator.uniform(*SIDES, (TRIALS, 2))).astype(np.int64)
    starts = ((sides - lengths) * generator.random((TRIALS, 2))).astype(np.int64)
    starts += (window.left, window.top)
    return np.concatenate([starts, starts + lengths], axis=1)


def _well_shaped(crops_Tx4: np.ndarray) -> np.ndarray:
    """bool [T]: has an area, and is neither too wide nor too high."""
    widths, heights = (crops_Tx4[:, 2:] - crops_Tx4[:, :2]).T
    narrow, wide = ASPECTS
    return (widths >= narrow * heights) & (widths <= wide * heights) & (widths > 0) & (heights > 0)


def _centers_inside(crops_Tx4: np.ndarray, corners_Nx4: np.ndarray) -> np.ndarray:
    """bool [T, N]."""
    centers = (corners_Nx4[:, :2] + corners_Nx4[:, 2:]) / 2
    after = centers > crops_Tx4[:, None, :2]
    before = centers < crops_Tx4[:, None, 2:]
    return np.all(after & before, axis=-1)


def _iou(crops_Tx4: np.ndarray, corners_Nx4: np.ndarray) -> np.ndarray:
    """fp64 [T, N]."""
    first = np.maximum(crops_Tx4[:, None, :2], corners_Nx4[:, :2])
    last = np.minimum(crops_Tx4[:, None, 2:], corners_Nx4[:, 2:])
    shared = np.prod(np.maximum(last - first, 0), axis=-1)
    crops = np.prod(crops_Tx4[:, 2:] - crops_Tx4[:, :2], axis=-1)
    objects = np.prod(corners_Nx4[:, 2:] - corners_Nx4[:, :2], axis=-1)
    return shared / np.maximum(crops[:, None] + objects - shared, 1e-9)

"""Volumes of any scanner to one fixed grid.

`window` cuts a fixed physical box, 6.0 x 1.92 x 6.0 mm by default, so that a voxel means the same
length for every scanner: centered on the scan in pitch and lateral direction and on the retina in
depth. What the scan does not cover is filled with the volume's background and reported by
`valid_box`. `resize` stretches the whole field onto the grid and reports the resulting spacing.

Resampling is separable: along each axis a sparse matrix holds area (box) weights where the output
is coarser than the input and linear weights where it is finer. B-scans are handled one at a time,
so that no float copy of the input exists (512 x 992 x 512 at 8 bits is 260 MB; as float32, 1 GB).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from jepa3d.data.retina import foreground_tokens, retina_center
from jepa3d.data.volume import SkipReason, SkipVolume

BACKGROUND_PERCENTILE = 5.0
# A resampled volume whose gray levels spread less than this (in 0..255) carries no structure.
MINIMUM_STANDARD_DEVIATION = 1.0


@dataclass(frozen=True)
class GridVolume:
    """A volume on the training grid.

    Attributes:
      volume: uint8 [D, H, W].
      valid_box: int32 [3, 2]: half-open index range of each axis that the scan covers.
      foreground: bool [D / pd, H / ph, W / pw], tokens in which retina was found.
      spacing_mm: (pitch, axial, lateral) of the grid.
      mean, std: of the valid voxels, on the 0..1 scale.
      retina_row: row of the source volume on which the window is centered.
    """

    volume: np.ndarray
    valid_box: np.ndarray
    foreground: np.ndarray
    spacing_mm: tuple[float, float, float]
    mean: float
    std: float
    retina_row: float

    @property
    def valid_fraction(self) -> float:
        """Share of the grid that the scan covers."""
        return float(np.prod((self.valid_box[:, 1] - self.valid_box[:, 0]) / self.volume.shape))


def to_grid(
    pixels: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    shape: tuple[int, int, int],
    patch: tuple[int, int, int],
    window_mm: tuple[float, float, float] | None,
) -> GridVolume:
    """Resamples a volume to the training grid.

    Args:
      pixels: uint8 [frame, row, column].
      spacing_mm: (pitch, axial, lateral) of `pixels`.
      shape: [D, H, W] of the grid.
      patch: token size in voxels; must divide `shape`.
      window_mm: physical box that the grid covers; None stretches the whole field (`resize`).

    Raises:
      SkipVolume: `constant_volume` when the part inside the window has no contrast.
    """
    center_row = retina_center(pixels)
    extent = tuple(n * s for n, s in zip(pixels.shape, spacing_mm))
    window = extent if window_mm is None else window_mm
    starts = [0.5 * (e - w) for e, w in zip(extent, window)]
    starts[1] = _clamped_start((center_row + 0.5) * spacing_mm[1], window[1], extent[1])
    axes = [
        axis_weights(count, step, start, size / bins, bins)
        for count, step, start, size, bins in zip(pixels.shape, spacing_mm, starts, window, shape)
    ]
    resampled = _apply(pixels, shape, *(weights for weights, _ in axes))
    box = np.array([valid for _, valid in axes], np.int32)
    inside = tuple(slice(low, high) for low, high in box)
    valid = resampled[inside]
    std = float(valid.std()) if valid.size else 0.0
    if std < MINIMUM_STANDARD_DEVIATION:
        raise SkipVolume(
            SkipReason.CONSTANT_VOLUME,
            f"the gray levels inside the window spread by {std:.2f} of 255 only",
        )
    volume = np.full(shape, np.percentile(valid, BACKGROUND_PERCENTILE), np.uint8)
    volume[inside] = np.clip(np.rint(valid), 0, 255).astype(np.uint8)
    # Statistics of the rounded gray levels, which are what training reads.
    kept = volume[inside]
    return GridVolume(
        volume=volume,
        valid_box=box,
        foreground=foreground_tokens(volume, box, patch),
        spacing_mm=tuple(float(w / n) for w, n in zip(window, shape)),  # type: ignore[arg-type]
        mean=float(kept.mean(dtype=np.float64) / 255.0),
        std=float(kept.std(dtype=np.float64) / 255.0),
        retina_row=float(center_row),
    )


def _clamped_start(center_mm: float, window_mm: float, extent_mm: float) -> float:
    """Start of a window centered at `center_mm`, moved so that it wastes nothing of the scan.

    A window smaller than the scan stays inside it; a larger one keeps the whole scan inside.
    """
    low, high = sorted((0.0, extent_mm - window_mm))
    return float(np.clip(center_mm - 0.5 * window_mm, low, high))


def axis_weights(
    count: int, step_mm: float, start_mm: float, bin_mm: float, bins: int
) -> tuple[scipy.sparse.csr_matrix, tuple[int, int]]:
    """Resampling along one axis.

    Input cell i covers [i, i + 1) * step; output bin j covers start + [j, j + 1) * bin.

    Returns:
      Sparse weights [bins, count], each valid row summing to 1, others empty; and the half-open
      range of valid bins, those whose center lies on the scan (for a scan thinner than a bin, those
      that hold most of it).
    """
    edges = (start_mm + bin_mm * np.arange(bins + 1)) / step_mm  # in input cells
    centers = 0.5 * (edges[1:] + edges[:-1])
    # Half a millionth of a cell absorbs the rounding of extents that are meant to coincide.
    on_scan = np.flatnonzero((centers > -5e-7) & (centers < count + 5e-7))
    if not on_scan.size:  # a scan thinner than a bin: the bins that hold most of it
        overlap = np.minimum(edges[1:], count) - np.maximum(edges[:-1], 0)
        on_scan = np.flatnonzero((overlap > 0) & (overlap > overlap.max() - 5e-7))
    if not on_scan.size:
        return scipy.sparse.csr_matrix((bins, count), dtype=np.float32), (0, 0)
    area = bin_mm > step_mm * (1 + 1e-9)
    rows, columns, values = [], [], []
    for bin_index in on_scan:
        if area:
            cells, weights = _area_row(edges[bin_index], edges[bin_index + 1], count)
        else:
            cells, weights = _linear_row(centers[bin_index], count)
        rows.extend([bin_index] * len(cells))
        columns.extend(cells)
        values.extend(weights)
    matrix = scipy.sparse.csr_matrix(
        (np.asarray(values, np.float32), (rows, columns)), shape=(bins, count)
    )
    return matrix, (int(on_scan[0]), int(on_scan[-1]) + 1)


def _area_row(low: float, high: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlap of [low, high) with each input cell, normalized."""
    low, high = max(low, 0.0), min(high, float(count))
    cells = np.arange(int(np.floor(low)), min(int(np.ceil(high)), count))
    overlap = np.minimum(cells + 1, high) - np.maximum(cells, low)
    return cells, overlap / overlap.sum()


def _linear_row(center: float, count: int) -> tuple[list[int], list[float]]:
    """Linear weights between the two cell centers around `center`, constant beyond the ends."""
    position = float(np.clip(center - 0.5, 0.0, count - 1.0))
    below = min(int(position), max(count - 2, 0))
    share = position - below
    return ([below], [1.0]) if share == 0 else ([below, below + 1], [1.0 - share, share])


def _apply(
    pixels: np.ndarray,
    shape: tuple[int, int, int],
    along_frames: scipy.sparse.csr_matrix,
    along_rows: scipy.sparse.csr_matrix,
    along_columns: scipy.sparse.csr_matrix,
) -> np.ndarray:
    """float32 [D, H, W]; frames outside the window are never touched."""
    result = np.zeros(shape, np.float32)
    by_frame = along_frames.tocsc()
    for frame in range(pixels.shape[0]):
        start, stop = by_frame.indptr[frame], by_frame.indptr[frame + 1]
        if start == stop:
            continue
        b_scan = along_rows @ pixels[frame].astype(np.float32)
        b_scan = np.ascontiguousarray((along_columns @ b_scan.T).T)
        for bin_index, weight in zip(by_frame.indices[start:stop], by_frame.data[start:stop]):
            result[bin_index] += weight * b_scan
    return result

"""A layered retina as volumes: healthy, or with disease whose amount is known.

`retina` draws a volume. `Disease` says what is wrong with it: drusen (deposits below the pigment
epithelium, which they lift into the outer nuclear layer, and, where that has no more room, with the
whole retina above) and loss of the outer layers at the fovea, both with a size, so that a probe can
be asked how little of it an encoder still sees.

Vocabulary: x runs along a B-scan, y across B-scans, both in (-1, 1) over the field of `FIELD_MM`;
depth z in (0, 1) from vitreous to choroid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Field of a synthetic volume in mm: slow scan, depth, fast scan.
FIELD_MM = (6.0, 1.92, 6.0)

# Reflectivity of the layers from the inner limiting membrane to the choroid, and the thickness of
# each as a share of the retina: nerve fibers, ganglion cells, inner plexiform, inner nuclear,
# outer plexiform, outer nuclear, photoreceptors, pigment epithelium.
_REFLECTIVITY = (0.85, 0.55, 0.65, 0.35, 0.6, 0.25, 0.75, 1.0)
_THICKNESS = (0.10, 0.15, 0.13, 0.12, 0.09, 0.22, 0.12, 0.07)
_INNER_LAYERS = 5  # thinned by the foveal pit
_NUCLEAR, _PHOTORECEPTORS, _EPITHELIUM = 5, 6, 7  # places of the outer layers
_DRUSEN_REFLECTIVITY = 0.5
_DRUSEN_AREA_MM = 1.5  # drusen lie at most so far from the fovea along either axis
# A druse takes at most this share of the outer nuclear layer above it; then it lifts all layers.
_MOST_LIFTED = 0.8


@dataclass(frozen=True)
class Disease:
    """What is wrong with a retina.

    Attributes:
      drusen: how many.
      drusen_radius_mm, drusen_height_mm: of each; a Gaussian bump of this deviation and height.
      outer_loss: share of the outer nuclear layer and the photoreceptors that is gone at the fovea.
    """

    drusen: int = 0
    drusen_radius_mm: float = 0.15
    drusen_height_mm: float = 0.05
    outer_loss: float = 0.0


HEALTHY = Disease()
# By what a table of participants calls them. The large ones are as high as drusenoid detachments.
DRUSEN = {
    "none": HEALTHY,
    "small": Disease(12, 0.20, 0.05),
    "medium": Disease(16, 0.28, 0.09),
    "large": Disease(20, 0.35, 0.14),
}
OUTER_LOSS = 0.8  # of those who have it


def retina(
    generator: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    thickness: float = 0.17,
    pit: float = 0.6,
    left_eye: bool = False,
    gain: float = 1.0,
    floor: float = 0.05,
    disease: Disease = HEALTHY,
) -> np.ndarray:
    """A layered retina with a foveal pit, vessel shadows and speckle.

    Args:
      generator: numpy random generator.
      shape: [frame, row, column].
      thickness: of the retina as a share of the depth; 0.17 of 1.92 mm is 0.33 mm.
      pit: share of the inner layers that the pit removes at the fovea, 0..1.
      left_eye: mirrors the fast axis, so that the nerve fibers thicken on the other side.
      gain, floor: brightness of tissue and noise floor of the scanner.
      disease: what is wrong with it.

    Returns:
      uint8 [frame, row, column].
    """
    frames, rows, columns = shape
    y, x = np.meshgrid(np.linspace(-1, 1, frames), np.linspace(-1, 1, columns), indexing="ij")
    x = -x if left_eye else x
    phases = generator.uniform(0, 2 * np.pi, 4)
    top = 0.38 + 0.06 * generator.uniform(-1, 1) + 0.04 * (x**2 + y**2)
    top = top + 0.012 * np.sin(3 * x + phases[0]) + 0.012 * np.sin(2.5 * y + phases[1])
    dip = pit * np.exp(-(x**2 + y**2) / (2 * 0.18**2))
    loss = disease.outer_loss * np.exp(-(x**2 + y**2) / (2 * 0.4**2))
    edges = _layer_edges(top, thickness, dip, loss, x, phases)
    edges = _lifted(edges, _drusen_depth(generator, disease, x, y))
    depth = (np.arange(rows) + 0.5)[None, :, None] / rows
    tissue = np.zeros(shape, np.float32)
    for level, upper, lower in zip((*_REFLECTIVITY, _DRUSEN_REFLECTIVITY), edges[:-1], edges[1:]):
        inside = (depth >= upper[:, None, :]) & (depth < lower[:, None, :])
        tissue += np.float32(level) * inside
    below = depth - edges[-1][:, None, :]
    tissue += np.where(below >= 0, 0.45 * np.exp(-np.maximum(below, 0) / 0.08), 0.0)
    shadow = 1.0 - _vessels(generator, x, y)[:, None, :] * (depth > edges[1][:, None, :])
    signal = floor + gain * 0.75 * tissue * shadow
    speckle = generator.gamma(8.0, 1 / 8.0, shape).astype(np.float32)
    return np.clip(np.rint(255 * signal * speckle), 0, 255).astype(np.uint8)


def _layer_edges(top, thickness, dip, loss, x, phases) -> list[np.ndarray]:
    """Depth of the surfaces from inner limiting membrane to Bruch's membrane, [frame, column]."""
    shares = [np.full_like(top, share) for share in _THICKNESS]
    shares[0] = shares[0] * (1.0 + 0.5 * x)  # nerve fibers thicken toward the disc
    for layer in range(_INNER_LAYERS):
        shares[layer] = shares[layer] * (1.0 - dip)
    for layer in (_NUCLEAR, _PHOTORECEPTORS):
        shares[layer] = shares[layer] * (1.0 - loss)
    bottom = top + thickness * (1.0 + 0.05 * np.sin(4 * x + phases[2]))
    edges = [bottom]
    for share in reversed(shares):
        edges.insert(0, edges[0] - thickness * share)
    return edges


def _drusen_depth(
    generator: np.random.Generator, disease: Disease, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """How high drusen stand above Bruch's membrane as a share of the depth, [frame, column]."""
    height = np.zeros_like(x)
    reach = _DRUSEN_AREA_MM / (FIELD_MM[2] / 2)
    radius = disease.drusen_radius_mm / (FIELD_MM[2] / 2)
    # Of a generator of their own: vessels and speckle are those of the healthy eye.
    for x0, y0 in generator.spawn(1)[0].uniform(-reach, reach, (disease.drusen, 2)):
        bump = np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * radius**2))
        height = np.maximum(height, disease.drusen_height_mm / FIELD_MM[1] * bump)
    return height


def _lifted(edges: list[np.ndarray], drusen: np.ndarray) -> list[np.ndarray]:
    """Surfaces above drusen; Bruch's membrane is the last and stays."""
    room = _MOST_LIFTED * (edges[_PHOTORECEPTORS] - edges[_NUCLEAR])
    beyond = np.maximum(drusen - np.maximum(room, 0.0), 0.0)
    inner = [edge - beyond for edge in edges[:_PHOTORECEPTORS]]
    outer = [edge - drusen for edge in edges[_PHOTORECEPTORS : _EPITHELIUM + 2]]
    return [*inner, *outer, edges[-1]]


def _vessels(generator: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shadow strength 0..0.6 of a few arched vessels, [frame, column]."""
    shadow = np.zeros_like(x)
    for side in (-1, 1, -1, 1):
        height, bend = generator.uniform(0.35, 0.9), generator.uniform(0.1, 0.4)
        distance = y - side * (height - bend * x**2)
        shadow = np.maximum(shadow, 0.6 * np.exp(-(distance**2) / (2 * 0.03**2)))
    return shadow

"""All figures of a reconstruction against the truth, by the names that evaluations report.

| name | unit | what |
|---|---|---|
| `mpjpe` | mm | 21 joints, relative to the wrist, valid frames |
| `placed_mpjpe` | mm | 21 joints as they stand in the world |
| `chamfer` | cm^2 | object as it stands, mean over frames |
| `chamfer_icp`, `f5_icp`, `f10_icp` | cm^2, % | object after registration with scale, one frame |
| `chamfer_hand` | cm^2 | CD_h: object relative to the wrist, mean over frames |
| `penetration_depth` | mm | deepest hand vertex in the object, mean over frames |
| `penetration_volume` | cm^3 | IV: common volume by 5 mm voxels, mean over frames |
| `contact_ratio` | % | frames with a hand vertex within 5 mm of the object |
| `contact_accuracy` | % | CA: frames that agree with the truth on contact |
| `jitter` | px / frame^2 | second difference of projected joints |
| `jerk` | m/s^3 | third derivative of joints |

`true_jitter` and the like are those of the truth itself, to read the others by. Frames count where
both have the hand (and the object). Of two hands, figures are means over both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hand_object.meshing import Mesh
from hand_object.metrics import contact, hands, surfaces
from hand_object.metrics.closed_surface import ClosedSurface
from hand_object.reconstruction import MovingHand, MovingObject, Reconstruction
from training.errors import ConfigError

PROTOCOLS = {
    "surface": "points drawn evenly by area, fixed seed",
    "vertices": "vertices of the meshes, as HOLD's evaluation has it",
}
UNITS = {
    "mpjpe": "mm",
    "placed_mpjpe": "mm",
    "chamfer": "cm2",
    "chamfer_icp": "cm2",
    "f5_icp": "%",
    "f10_icp": "%",
    "chamfer_hand": "cm2",
    "penetration_depth": "mm",
    "penetration_volume": "cm3",
    "contact_ratio": "%",
    "contact_accuracy": "%",
    "jitter": "px",
    "jerk": "m/s3",
}
UNITS |= {f"true_{name}": unit for name, unit in UNITS.items()}
POINTS = 3000  # of a surface
MOST_FRAMES = 24  # of volumes and Chamfer distances, evenly spread


def scores(
    found: Reconstruction, truth: Reconstruction, protocol: str = "surface"
) -> dict[str, float]:
    """All figures that both have the parts for.

    Args:
      protocol: one of `PROTOCOLS`, of what stands for a surface.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol {protocol!r} is unknown; use {' or '.join(PROTOCOLS)}")
    sides = [side for side in found.hands if side in truth.hands]
    each = [_hand(found, truth, side) for side in sides]
    figures: dict[str, float] = {}
    if found.object is not None and truth.object is not None:
        draw = _points(protocol)
        figures = _object(found.object, truth.object, draw)
        for side in sides:
            mine, touched = _touch(found.hands[side], found.object)
            true, wanted = _touch(truth.hands[side], truth.object)
            figures_here = mine | {f"true_{name}": value for name, value in true.items()}
            both = _both(found, truth, side)
            if both.any():
                figures_here["contact_accuracy"] = contact.contact_accuracy(
                    touched[both], wanted[both]
                )
                figures_here["chamfer_hand"] = _relative(found, truth, side, draw)
            each.append(figures_here)
    return figures | _mean(each)


def _points(protocol: str) -> Callable[[Mesh], np.ndarray]:
    def draw(mesh: Mesh) -> np.ndarray:
        if protocol == "surface":
            return surfaces.sample_surface(mesh.vertices, mesh.faces, POINTS)
        random = np.random.default_rng(0)
        rows = random.permutation(len(mesh.vertices))[:POINTS]
        return mesh.vertices[rows]

    return draw


def _hand(found: Reconstruction, truth: Reconstruction, side: str) -> dict[str, float]:
    mine, true = found.hands[side], truth.hands[side]
    valid = mine.valid & true.valid
    figures = {
        "mpjpe": hands.mpjpe(mine.joints, true.joints, valid),
        "placed_mpjpe": hands.placed_mpjpe(mine.joints, true.joints, valid),
    }
    for prefix, whole, hand in (("", found, mine), ("true_", truth, true)):
        pixels = hands.projected(hand.joints, whole.intrinsics, whole.world_to_camera)
        figures[f"{prefix}jitter"] = hands.jitter(pixels, hand.valid)
        figures[f"{prefix}jerk"] = hands.jerk(hand.joints, whole.rate, hand.valid)
    return figures


def _object(found: MovingObject, truth: MovingObject, draw) -> dict[str, float]:
    mine, true = draw(found.mesh), draw(truth.mesh)
    frames = _spread(found.valid & truth.valid)
    if not frames:
        return {}
    placed = [
        surfaces.score(_moved(found, f, mine), _moved(truth, f, true)).chamfer for f in frames
    ]
    first = frames[0]
    fitted = surfaces.score_registered(_moved(found, first, mine), _moved(truth, first, true))
    return {
        "chamfer": float(np.mean(placed)),
        "chamfer_icp": fitted.chamfer,
        "f5_icp": fitted.f5,
        "f10_icp": fitted.f10,
    }


def _touch(hand: MovingHand, thing: MovingObject) -> tuple[dict[str, float], np.ndarray]:
    """Depth, volume and contact of one reconstruction, and the frames [T] with contact."""
    inside = ClosedSurface(thing.mesh.vertices, thing.mesh.faces)
    low, high = thing.mesh.vertices.min(axis=0), thing.mesh.vertices.max(axis=0)
    valid = hand.valid & thing.valid
    touched, depths, volumes = np.zeros(len(valid), bool), [], []
    counted = _spread(valid)
    for frame in np.flatnonzero(valid).tolist():
        skin = _local(thing, frame, hand.vertices(frame))
        reach = contact.CONTACT
        near = skin[((skin > low - reach) & (skin < high + reach)).all(axis=1)]
        depth = contact.penetration_depth(near, inside)[0] if len(near) else 0.0
        touched[frame] = depth > 0 or (len(near) > 0 and contact.in_contact(near[None], inside)[0])
        depths.append(depth)
        if frame in counted:
            volumes.append(_common(skin, hand.mesh.faces, inside, (low, high)) if depth else 0.0)
    if not depths:
        return {}, touched
    figures = {
        "penetration_depth": float(np.mean(depths)),
        "penetration_volume": float(np.mean(volumes)),
        "contact_ratio": contact.contact_ratio(touched[valid]),
    }
    return figures, touched


def _common(skin: np.ndarray, faces: np.ndarray, inside, box) -> float:
    low, high = np.maximum(skin.min(axis=0), box[0]), np.minimum(skin.max(axis=0), box[1])
    return contact.common_volume(ClosedSurface(skin, faces, 2000), inside, low, high)


def _both(found: Reconstruction, truth: Reconstruction, side: str) -> np.ndarray:
    """[T] frames where both have this hand and the object."""
    assert found.object is not None and truth.object is not None
    hands_there = found.hands[side].valid & truth.hands[side].valid
    return hands_there & found.object.valid & truth.object.valid


def _relative(found: Reconstruction, truth: Reconstruction, side: str, draw) -> float:
    assert found.object is not None and truth.object is not None
    frames = _spread(_both(found, truth, side))
    mine, true = draw(found.object.mesh), draw(truth.object.mesh)
    return surfaces.hand_chamfer(
        np.stack([_moved(found.object, frame, mine) for frame in frames]),
        found.hands[side].joints[frames, 0],
        np.stack([_moved(truth.object, frame, true) for frame in frames]),
        truth.hands[side].joints[frames, 0],
    )


def _spread(valid: np.ndarray) -> list[int]:
    """At most MOST_FRAMES of the frames that are valid, the first and the last among them."""
    rows = np.flatnonzero(valid)
    if len(rows) > MOST_FRAMES:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_FRAMES).round().astype(int)]
    return rows.tolist()


def _moved(thing: MovingObject, frame: int, points: np.ndarray) -> np.ndarray:
    return points @ thing.to_world[frame, :3, :3].T + thing.to_world[frame, :3, 3]


def _local(thing: MovingObject, frame: int, points: np.ndarray) -> np.ndarray:
    return (points - thing.to_world[frame, :3, 3]) @ thing.to_world[frame, :3, :3]


def _mean(each: list[dict[str, float]]) -> dict[str, float]:
    names = {name for figures in each for name in figures}
    return {
        name: float(np.mean([figures[name] for figures in each if name in figures]))
        for name in sorted(names)
    }

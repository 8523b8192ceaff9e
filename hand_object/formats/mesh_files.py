"""Meshes as OBJ and PLY, with colors of vertices where there are some. Meters, counterclockwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hand_object.meshing import Mesh


def write_obj(path: Path, mesh: Mesh) -> None:
    """Text; colors follow the coordinates, as MeshLab and Blender read them."""
    rows = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices]
    if mesh.colors is not None:
        rows = [
            f"{row} {r:.4f} {g:.4f} {b:.4f}" for row, (r, g, b) in zip(rows, mesh.colors / 255.0)
        ]
    rows += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    path.write_text("\n".join(rows) + "\n", encoding="ascii")


def write_ply(path: Path, mesh: Mesh) -> None:
    """Binary, little-endian."""
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if mesh.colors is not None:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.zeros(len(mesh.vertices), fields)
    for column, (name, _) in enumerate(fields):
        source = mesh.vertices[:, column] if column < 3 else mesh.colors[:, column - 3]  # type: ignore[index]
        vertices[name] = source
    faces = np.zeros(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    kinds = {"<f4": "float", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment lengths in meters",
        f"element vertex {len(vertices)}",
        *(f"property {kinds[kind]} {name}" for name, kind in fields),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    start = "\n".join(header).encode("ascii") + b"\n"
    path.write_bytes(start + vertices.tobytes() + faces.tobytes())


MESH_FORMATS = {"obj": write_obj, "ply": write_ply}

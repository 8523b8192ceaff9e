"""The page as text: meshes, motion and input frames inside, drawn by `viewer.js` with WebGL 2.

Positions are float32 and all else is as small as the eye allows; 48 frames with two meshes of some
thousand vertices make about a megabyte.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from hand_object.formats.glb import strongest, unit
from hand_object.hands.mesh import vertex_normals
from hand_object.meshing import Mesh
from hand_object.reconstruction import Reconstruction
from training.errors import InputError

HERE = Path(__file__).parent
PLAIN = {"right": (0.85, 0.62, 0.50), "left": (0.62, 0.68, 0.90), "object": (0.45, 0.72, 0.62)}
IMAGE_PIXELS = 320  # longest side of an input frame in the page
JPEG_QUALITY = 80
MOST_JOINTS = 64  # of the shader


def page(
    found: Reconstruction,
    heat: Mapping[str, np.ndarray] | None = None,
    image: Callable[[int], np.ndarray] | None = None,
    facts: Mapping[str, str] | None = None,
) -> str:
    """HTML of one self-contained page.

    Args:
      heat: of each part [V] in 0..1, the share of frames with contact.
      image: frame number -> input picture [H, W, 3] uint8.
      facts: what is told beside the picture, in order.
    """
    heat = heat or {}
    parts = [
        _part(side, hand.mesh, heat.get(side), hand.transforms, hand.valid, hand.weights)
        for side, hand in found.hands.items()
    ]
    if found.object is not None:
        thing = found.object
        own = thing.to_world[:, None]
        parts.append(_part("object", thing.mesh, heat.get("object"), own, thing.valid, None))
    center, radius = _middle(found)
    k = found.intrinsics
    scene = {
        "frames": len(found),
        "rate": found.rate,
        "size": list(found.size),
        "center": center.tolist(),
        "radius": radius,
        "cameras": found.world_to_camera[:, :3].reshape(len(found), 12).round(7).tolist(),
        "lenses": k[:, [0, 1, 0, 1, 0], [0, 1, 2, 2, 1]].round(4).tolist(),
        "images": [_jpeg(image(frame)) for frame in range(len(found))] if image else [],
        "parts": parts,
    }
    # "</" could end the script element that the text lies in.
    text = json.dumps(scene, separators=(",", ":")).replace("</", "<\\/")
    filled = {
        "title": html.escape(found.name),
        "subtitle": html.escape(f"{len(found)} frames, {' and '.join(p['name'] for p in parts)}"),
        "facts": _facts(facts or {}),
        "scene": text,
        "script": (HERE / "viewer.js").read_text(encoding="utf-8"),
    }
    template = (HERE / "page.html").read_text(encoding="utf-8")
    # One pass, so that a name in braces inside of what is filled in stays as it is.
    return re.sub(
        "|".join(f"{{{name}}}" for name in filled), lambda m: filled[m[0][1:-1]], template
    )


def _part(name: str, mesh: Mesh, heat, transforms, valid, weights) -> dict:
    """[T, J, 4, 4] transforms; weights None of a rigid part."""
    if transforms.shape[1] > MOST_JOINTS:
        raise InputError(
            f"the {name} hand has {transforms.shape[1]} joints but a page draws {MOST_JOINTS} at "
            "most; export it as npz or ply"
        )
    normals = unit(vertex_normals(mesh.vertices, mesh.faces))
    tint = mesh.colors
    if tint is None:
        tint = np.tile(np.rint(255 * np.array(PLAIN[name])), (len(mesh.vertices), 1))
    warm = np.zeros(len(mesh.vertices)) if heat is None else heat
    part = {
        "name": name,
        "plain": PLAIN[name],
        "places": _text(mesh.vertices.astype("<f4")),
        "normals": _text(np.rint(127 * normals).astype("i1")),
        "colors": _text(tint.astype("u1")),
        "heat": _text(np.ceil(255 * np.clip(warm, 0, 1)).astype("u1")),
        "faces": _text(mesh.faces.astype("<u4")),
        "transforms": _text(transforms[:, :, :3].astype("<f4")),
        "valid": np.asarray(valid, int).tolist(),
    }
    if weights is not None:
        joints, kept = strongest(weights)
        part |= {"joints": _text(joints.astype("u1")), "weights": _text(kept.astype("<f4"))}
    return part


def _middle(found: Reconstruction) -> tuple[np.ndarray, float]:
    """Center and radius of all that is ever shown."""
    points = [
        vertices[::17] for frame in range(len(found)) for vertices, _ in found.parts(frame).values()
    ]
    if not points:
        return np.zeros(3), 0.1
    everything = np.concatenate(points)
    low, high = np.quantile(everything, [0.02, 0.98], axis=0)
    return (low + high) / 2, float(np.linalg.norm(high - low) / 2)


def _text(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _jpeg(picture: np.ndarray) -> str:
    shown = Image.fromarray(picture)
    shown.thumbnail((IMAGE_PIXELS, IMAGE_PIXELS))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _facts(facts: Mapping[str, str]) -> str:
    rows = (
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{''.join(rows)}</table>" if facts else ""

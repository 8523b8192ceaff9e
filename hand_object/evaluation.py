"""Scores of frames that were not trained on: pictures, masks, hands and the object's surface.

Protocols: PSNR and SSIM over whole frames, `foreground_psnr` over the pixels of the masks; mask IoU
of what is seen, over all pixels of all frames together; MPJPE of 21 joints relative to the wrist;
Chamfer distance and F-score of points drawn evenly by area, the object as it stands in its own
frame and, under `icp_`, after registration. Poses of held-out frames: see `held_out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.config import Config, FieldConfig
from hand_object.data.sequence import BACKGROUND, CLASS_OF, UNKNOWN
from hand_object.data.sequence_access import Opened
from hand_object.fields.sdf_network import signed_distance
from hand_object.fields.triplane import HALF_SIDE
from hand_object.hands.skinning import pose_hand
from hand_object.held_out import followed_params
from hand_object.meshing import Mesh, NoSurface, extract
from hand_object.metrics.hands import mpjpe, placed_mpjpe
from hand_object.metrics.images import psnr, ssim
from hand_object.metrics.surfaces import sample_surface, score, score_registered
from hand_object.render.pixels import pixel_rays
from hand_object.render.scene import render
from hand_object.render.scene_placement import Statics, placements
from training.loss import Batch
from training.mesh import Layout
from training.over_batches import BatchResult, from_all_hosts, over_batches
from training.source import Source
from training.state import TrainState
from training.verdict import Evaluation

CHUNK = 2048  # rays that are rendered at once
PICTURES = 3  # frames shown as true | rendered | what is seen where
SURFACE_POINTS = 10_000
SHOWN = np.array([[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115]], np.uint8)  # classes
_pose = jax.jit(pose_hand)
_distance = jax.jit(signed_distance, static_argnums=1)


class Subject(Protocol):
    """What is asked of a task: its sequence, what it holds out, and the poses of the data."""

    @property
    def config(self) -> Config: ...
    @property
    def opened(self) -> Opened: ...
    @property
    def statics(self) -> Statics: ...
    @property
    def held_out(self) -> np.ndarray: ...
    @property
    def start_poses(self) -> dict[str, Any]: ...
    def rendering_arrays(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class RenderFrames:
    """Renders whole frames: color [B, H, W, 3] and the shares of classes [B, H, W, 4]."""

    config: FieldConfig
    size: tuple[int, int]

    def __call__(self, params, caches, arrays, batch: Batch) -> BatchResult:
        frames = batch["frame"]
        placed = placements(params["poses"], arrays["statics"], frames, arrays["there"][frames])
        height, width = self.size
        pixels = jnp.stack(jnp.meshgrid(jnp.arange(width), jnp.arange(height)), axis=-1)
        pixels = pixels.reshape(-1, 2)
        parts = -(-len(pixels) // CHUNK)
        # What fills up the last part repeats the first pixel.
        padded = jnp.pad(pixels, ((0, parts * CHUNK - len(pixels)), (0, 0)))

        def part(own):
            own = jnp.broadcast_to(own[None], (len(frames), *own.shape))
            seen = render(params, self.config, placed, pixel_rays(arrays, frames, own), caches)
            return seen.color, seen.semantics

        color, semantics = jax.lax.map(part, padded.reshape(parts, CHUNK, 2))

        def picture(values):
            values = jnp.moveaxis(values, 0, 1).reshape(len(frames), parts * CHUNK, -1)
            return values[:, : len(pixels)].reshape(len(frames), height, width, -1)

        return BatchResult(local=(picture(color), picture(semantics)))


def evaluate(task: Subject, state: TrainState, source: Source, layout: Layout) -> Evaluation:
    """Metrics and pictures of the frames of a source."""
    opened, model = task.opened, task.config.model
    params = followed_params(jax.device_get(state.params), task.start_poses, task.held_out)
    arrays = task.rendering_arrays()
    arguments = layout.replicate((params, arrays))
    frames = np.array([int(source[index]["frame"]) for index in range(len(source))])
    pictured = set(np.linspace(0, len(frames) - 1, PICTURES).round().astype(int).tolist())

    def examine(index: int, local) -> tuple[dict[str, float], np.ndarray | None]:
        color, seen = local[0], np.argmax(local[1], axis=-1)
        frame = int(frames[index])
        shown = comparison(opened.images[frame], color, seen) if index in pictured else None
        return frame_scores(opened.images[frame], opened.masks[frame], color, seen), shown

    swept = over_batches(
        RenderFrames(model, opened.sequence.size),
        (arguments[0], state.model_state["caches"], arguments[1]),
        source,
        1,
        layout,
        workers=1,
        examine=examine,
    )
    scores = from_all_hosts({index: own for index, (own, _) in swept.examined.items()})
    images = {
        f"frame_{frames[index]:04d}": picture
        for index, (_, picture) in swept.examined.items()
        if picture is not None
    }
    metrics = summary(list(scores.values())) | beta_metrics(params, model)
    truth = opened.truth
    if truth:
        metrics |= hand_metrics(task, params["poses"], truth)
    if truth and task.config.metrics.meshes and "object" in params["nodes"]:
        metrics |= object_metrics(task, params, truth)
    return Evaluation(metrics, images)


def frame_scores(
    image: np.ndarray, mask: np.ndarray, color: np.ndarray, seen: np.ndarray
) -> dict[str, float]:
    """Of one frame, and the pixels that the mask IoU of all frames is made of."""
    wanted = image.astype(np.float32) / 255.0
    known = mask != UNKNOWN
    scores = {
        "psnr": psnr(color, wanted),
        "ssim": ssim(color, wanted),
        "foreground_psnr": psnr(color, wanted, known & (mask != BACKGROUND)),
    }
    for name, number in CLASS_OF.items():
        found, own = (seen == number) & known, mask == number
        scores[f"common_{name}"] = float((found & own).sum())
        scores[f"either_{name}"] = float((found | own).sum())
    return scores


def summary(scores: list[dict[str, float]]) -> dict[str, float]:
    """Means over frames, and the mask IoU of each node and of all nodes (`mask_iou`)."""
    metrics = {"frames": float(len(scores))}
    for name in ("psnr", "ssim", "foreground_psnr"):
        values = [own[name] for own in scores if np.isfinite(own[name])]
        if values:
            metrics[name] = float(np.mean(values))
    for name in CLASS_OF:
        either = sum(own[f"either_{name}"] for own in scores)
        if either:
            metrics[f"mask_iou_{name}"] = sum(own[f"common_{name}"] for own in scores) / either
    ious = [value for name, value in metrics.items() if name.startswith("mask_iou_")]
    if ious:
        metrics["mask_iou"] = float(np.mean(ious))
    return metrics


def beta_metrics(params: Mapping[str, Any], model: FieldConfig) -> dict[str, float]:
    """Width of the surface of each node, scene units."""
    least = model.density.beta_least
    return {
        f"beta_{name}": float(least + np.logaddexp(0.0, node["beta"]))
        for name, node in params["nodes"].items()
    }


def hand_metrics(
    task: Subject, tables: Mapping[str, Any], truth: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """MPJPE over all frames with a pose; the truth is posed by the same model."""
    metrics = {}
    for side, hand in task.statics.hands.items():
        valid = task.opened.sequence.hands[side].valid
        wanted = truth.get("hand_pose_axis_angle"), truth.get("hand_trans")
        if wanted[0] is None or wanted[1] is None or len(task.opened.hands) > 1:
            continue
        found = _joints(hand.model, tables[side]["pose"], tables[side]["translation"])
        true = _joints(hand.model, *wanted)
        metrics[f"mpjpe_{side}"] = mpjpe(found, true, valid)
        metrics[f"placed_mpjpe_{side}"] = placed_mpjpe(found, true, valid)
    return metrics


def _joints(model, pose, translation) -> np.ndarray:
    posed = _pose(model, np.asarray(pose, np.float32), np.asarray(translation, np.float32), None)
    return np.asarray(posed.joints)


def object_mesh(params: Mapping[str, Any], task: Subject) -> Mesh:
    """The surface of the object in its own frame, meters."""
    model = task.config.model
    node = params["nodes"]["object"]["sdf"]
    side = np.full(3, HALF_SIDE)

    def distance(points: np.ndarray) -> np.ndarray:
        # Few shapes are compiled: points are filled up to a power of two.
        wanted = 1 << max(len(points) - 1, 1).bit_length()
        filled = np.pad(points.astype(np.float32), ((0, wanted - len(points)), (0, 0)))
        return np.asarray(_distance(node, model, filled))[: len(points)]

    mesh = extract(distance, (-side, side), task.config.metrics.resolution, "the object")
    scale = float(np.exp(params["poses"]["object"]["log_scale"]))
    thing = task.opened.sequence.object
    assert thing is not None
    vertices = scale * (mesh.vertices * thing.radius + thing.center)
    return Mesh(vertices, mesh.faces)


def object_metrics(
    task: Subject, params: Mapping[str, Any], truth: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Chamfer (cm^2) and F-scores (%) of the object's surface; `object_surface`: 1 if there is one.

    A field without a surface does not end the run: it may find one, and the guard `lost-node` says
    so meanwhile.
    """
    if "object_vertices" not in truth or "object_faces" not in truth:
        return {}
    try:
        mesh = object_mesh(params, task)
    except NoSurface:
        return {"object_surface": 0.0}
    found = sample_surface(mesh.vertices, mesh.faces, SURFACE_POINTS)
    wanted = sample_surface(truth["object_vertices"], truth["object_faces"], SURFACE_POINTS)
    as_it_is, registered = score(found, wanted), score_registered(found, wanted)
    return {
        "object_surface": 1.0,
        "object_chamfer": as_it_is.chamfer,
        "object_f5": as_it_is.f5,
        "object_f10": as_it_is.f10,
        "icp_object_chamfer": registered.chamfer,
        "icp_object_f5": registered.f5,
        "icp_object_f10": registered.f10,
    }


def comparison(image: np.ndarray, color: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """uint8 [H, 3 W, 3]: photograph, rendering, and which node is seen where."""
    rendered = np.rint(255 * np.clip(color, 0, 1)).astype(np.uint8)
    return np.concatenate([image, rendered, SHOWN[seen]], axis=1)

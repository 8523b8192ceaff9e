"""Scores of frames that were not trained on: pictures, masks, hands and the object's surface.

Protocols: PSNR and SSIM over whole frames, `foreground_psnr` over the pixels of the masks; mask IoU
of what is seen, over all pixels of all frames together; what is compared with the truth, over all
frames: see `metrics.scores`. Poses of held-out frames: see `held_out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.anchors import report_table
from hand_object.config import FieldConfig
from hand_object.data.sequence import BACKGROUND, CLASS_OF, UNKNOWN
from hand_object.held_out import followed_params
from hand_object.meshing import NoSurface
from hand_object.metrics.contact_heat import contact_heat
from hand_object.metrics.images import psnr, ssim
from hand_object.metrics.scores import scores
from hand_object.pictures import sheet
from hand_object.reconstruction import Reconstruction
from hand_object.render.pixels import pixel_rays
from hand_object.render.scene import render
from hand_object.render.scene_placement import placements
from hand_object.subject import Subject
from hand_object.trained_scene import trained_scene, true_scene
from training import distributed
from training.loss import Batch
from training.mesh import Layout
from training.over_batches import BatchResult, from_all_hosts, over_batches
from training.source import Source
from training.state import TrainState
from training.verdict import Evaluation

CHUNK = 2048  # rays that are rendered at once
PICTURES = 3  # frames shown as true | rendered | what is seen where
PROTOCOL = "surface"  # of `metrics.scores`
SHOWN = np.array([[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115]], np.uint8)  # classes


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
        there = arrays["there"][frame]
        return frame_scores(opened.images[frame], opened.masks[frame], color, seen, there), shown

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
    if not task.config.metrics.meshes:
        return Evaluation(metrics, images)
    compared = compare(task, state.params)
    return Evaluation(metrics | compared.metrics, images | compared.images, compared.tables)


def frame_scores(
    image: np.ndarray, mask: np.ndarray, color: np.ndarray, seen: np.ndarray, there: np.ndarray
) -> dict[str, float]:
    """Of one frame, and the pixels that the mask IoU of all frames is made of.

    Args:
      there: [4] bool by class: nodes that have a pose in the frame. What the mask shows of others
        was not learned, and does not count.
    """
    wanted = image.astype(np.float32) / 255.0
    known = np.append(there, np.zeros(UNKNOWN + 1 - len(there), bool))[mask]
    scores = {
        "psnr": psnr(color, wanted),
        "ssim": ssim(color, wanted),
        "foreground_psnr": psnr(color, wanted, known & (mask != BACKGROUND)),
    }
    for name, number in CLASS_OF.items():
        found, own = (seen == number) & known, (mask == number) & known
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


def compare(task: Subject, params: Mapping[str, Any]) -> Evaluation:
    """Figures of `metrics.scores` against the truth, published ones beside them, and the contact.

    Nothing where there is no truth. A field without a surface does not end the run (it may find
    one; the guard `lost-node` says so meanwhile): `surfaces` is 1 where all nodes have one, else 0.
    """
    truth = true_scene(task.opened)
    if truth is None:
        return Evaluation({})
    try:
        found = trained_scene(task, params, task.config.metrics.resolution)
    except NoSurface:
        return Evaluation({"surfaces": 0.0})
    figures = scores(found, truth, PROTOCOL)
    # The same picture on every host: one of them writes it.
    images = {"contact": contact_sheet(found, task.opened.images)} if distributed.is_main() else {}
    published = report_table(figures, PROTOCOL, found.name)
    return Evaluation(figures | {"surfaces": 1.0}, images, {"published": published})


def contact_sheet(found: Reconstruction, images: np.ndarray) -> np.ndarray:
    """Overlays above the contact of the sequence, uint8 [height, width, 3]."""
    return sheet(found, contact_heat(found), images)


def comparison(image: np.ndarray, color: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """uint8 [H, 3 W, 3]: photograph, rendering, and which node is seen where."""
    rendered = np.rint(255 * np.clip(color, 0, 1)).astype(np.uint8)
    return np.concatenate([image, rendered, SHOWN[seen]], axis=1)

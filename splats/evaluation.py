"""Scores on views, from arrays only: what was rendered against what was photographed.

One function gives a PSNR in this system (`splats.losses.photometric.psnr`), of images clipped to
[0, 1] over the pixels that count. SSIM is the reporting variant (`metric_ssim`, windows inside of
the image). LPIPS is computed on request, by the variant that the metric's name says
(`splats.metrics.lpips`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from splats.data.scene import Scene
from splats.data.views import Arrays, camera_of
from splats.gaussians.population import Gaussians
from splats.losses.photometric import metric_ssim, psnr
from splats.metrics.color_correction import fit_affine
from splats.metrics.lpips import Lpips
from splats.render import RenderSettings, render
from splats.render.camera import Camera

PICTURES = 3  # held-out views shown as true | rendered | error
ERROR_GAIN = 4.0  # of the absolute error in pictures

RenderView = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Scores:
    """Means over views, PSNR in dB; `lpips` has a variant's name and value, or nothing."""

    psnr: float
    ssim: float
    corrected_psnr: float
    views: int
    pixels: int
    lpips: dict[str, float]


@functools.partial(jax.jit, static_argnames="settings")
def _render(gaussians, camera, settings, active_degree):
    """As `render`; on a mesh, whole on every device, so that every process can read it."""
    output = render(gaussians, camera, settings, active_degree=active_degree)
    if jax.sharding.get_abstract_mesh().empty:
        return output
    return jax.lax.with_sharding_constraint(output, PartitionSpec())


def complete_rendering(
    gaussians: Gaussians, camera: Camera, settings: RenderSettings, active_degree: jax.Array
) -> tuple[np.ndarray, RenderSettings]:
    """One view on black, float32 [H, W, 3], and the settings with room for its pairs."""
    output = _render(gaussians, camera, settings, active_degree=active_degree)
    while bool(output.overflow):
        # In one go where it can be told, since every capacity is compiled.
        capacity = max(2 * settings.pair_capacity, 1 << int(output.pairs_needed).bit_length())
        settings = replace(settings, pair_capacity=capacity)
        output = _render(gaussians, camera, settings, active_degree=active_degree)
    return np.asarray(output.image), settings


def view_renderer(
    cameras: Arrays, gaussians: Gaussians, settings: RenderSettings, active_degree: jax.Array
) -> RenderView:
    """Renders views on black; a view that needs more pairs gets them.

    Args:
      cameras: world_to_camera [V, 4, 4] and intrinsics [V, 3, 3].
      gaussians: with `alive`, see `splats.render.render`.
    """

    def render_view(view: int) -> np.ndarray:
        nonlocal settings
        camera = camera_of(cameras, jnp.int32(view))
        image, settings = complete_rendering(gaussians, camera, settings, active_degree)
        return image

    return render_view


def photograph(scene: Scene, view: int) -> np.ndarray:
    """float32 [H, W, 3] in [0, 1], without padding."""
    return scene.view(view).astype(np.float32) / 255.0


def score_views(
    scene: Scene, views: np.ndarray, render_view: RenderView, lpips: Lpips | None = None
) -> Scores:
    """Scores of all `views` (indices into the scene).

    Args:
      render_view: index -> float32 image [H, W, 3] of the padded size.
      lpips: a further metric; pixels that do not count are left out as in
        `splats.metrics.lpips.distance`.
    """
    rows, distances, pixels = [], [], 0
    for view in views.tolist():
        true = photograph(scene, view)
        rendered = render_view(view)[: true.shape[0], : true.shape[1]]
        mask = valid = None
        pixels += true.shape[0] * true.shape[1]
        if scene.valid is not None:
            valid = scene.valid[view, : true.shape[0], : true.shape[1]]
            pixels += int(valid.sum()) - valid.size
            mask = jnp.asarray(valid, jnp.float32)
        if lpips is not None:
            distances.append(lpips(rendered, true, valid))
        corrected = fit_affine(np.clip(rendered, 0.0, 1.0), true, valid)
        rows.append(
            (
                float(psnr(jnp.asarray(rendered), jnp.asarray(true), mask)),
                float(metric_ssim(jnp.asarray(rendered), jnp.asarray(true), mask)),
                float(psnr(jnp.asarray(corrected), jnp.asarray(true), mask)),
            )
        )
    means = np.mean(np.asarray(rows, np.float64), axis=0)
    return Scores(
        *means.tolist(),
        views=len(rows),
        pixels=pixels,
        lpips={} if lpips is None else {f"lpips_{lpips.name}": float(np.mean(distances))},
    )


def held_out_and_train(
    scene: Scene,
    views: np.ndarray,
    render_view: RenderView,
    lpips: Lpips | None = None,
    *,
    corrected: bool,
) -> dict[str, float]:
    """Scores of held-out `views`, of as many training views (`train_...`), and their gap.

    Args:
      lpips: also this distance.
      corrected: also `corrected_psnr`, after the affine color fit.
    """
    held_out = score_views(scene, views, render_view, lpips)
    train = score_views(scene, spread_over(scene.train, len(views)), render_view, lpips)
    metrics = {
        "psnr": held_out.psnr,
        "ssim": held_out.ssim,
        "views": float(held_out.views),
        "pixels": float(held_out.pixels),
        **held_out.lpips,
    }
    for name, value in {"psnr": train.psnr, "ssim": train.ssim, **train.lpips}.items():
        metrics[f"train_{name}"] = value
    metrics["gap_psnr"] = train.psnr - held_out.psnr
    if corrected:
        metrics["corrected_psnr"] = held_out.corrected_psnr
    return metrics


def spread_over(indices: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the indices, evenly spread."""
    if len(indices) <= count:
        return indices
    return indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]


def comparison_picture(true: np.ndarray, rendered: np.ndarray) -> np.ndarray:
    """uint8 [H, 3 W, 3]: photograph, rendering, absolute error times 4."""
    rendered = np.clip(rendered, 0.0, 1.0)
    error = np.clip(ERROR_GAIN * np.abs(true - rendered), 0.0, 1.0)
    return np.rint(255.0 * np.concatenate([true, rendered, error], axis=1)).astype(np.uint8)


def pictures(scene: Scene, views: np.ndarray, render_view: RenderView) -> dict[str, np.ndarray]:
    """Comparison pictures of a few of the views, by the name of the view."""
    result = {}
    for view in spread_over(views, PICTURES).tolist():
        true = photograph(scene, view)
        rendered = render_view(view)[: true.shape[0], : true.shape[1]]
        stem = scene.names[view].rpartition(".")[0] or scene.names[view]
        result[f"view_{stem.replace('/', '_')}"] = comparison_picture(true, rendered)
    return result

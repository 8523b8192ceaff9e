"""Scores on views, from arrays only: what was rendered against what was photographed.

Every device renders views of its own, and every host scores those that its devices rendered. One
function gives a PSNR in this system (`splats.losses.photometric.psnr`), of images clipped to [0, 1]
over the pixels that count. SSIM is the reporting variant (`metric_ssim`, windows inside of the
image). LPIPS is computed on request, by the variant that the metric's name says
(`splats.metrics.lpips`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from splats.data.background import BLACK, Color
from splats.data.scene import Scene
from splats.data.views import Arrays, camera_of
from splats.gaussians.population import Gaussians
from splats.held_out_table import held_out_table, small, small_name
from splats.losses.photometric import metric_ssim, psnr
from splats.metrics.color_correction import fit_affine
from splats.metrics.lpips import Lpips
from splats.render import RenderSettings, render
from splats.render.camera import Camera
from training.loss import Batch
from training.mesh import BATCH, Layout
from training.over_batches import BatchResult, Swept, from_all_hosts, over_batches
from training.source import Example
from training.verdict import Evaluation

PICTURES = 3  # held-out views shown as true | rendered | error
ERROR_GAIN = 4.0  # of the absolute error in pictures

RenderView = Callable[[int], np.ndarray]
ViewScores = dict[str, float]
Pictures = dict[str, np.ndarray]  # by name, uint8 [height, width, 3]


@dataclass(frozen=True)
class CameraSource:
    """Examples are cameras of a scene; one may come up more than once.

    Attributes:
      views: indices into the scene.
    """

    scene: Scene
    views: np.ndarray

    @property
    def fingerprint(self) -> str:
        return self.scene.fingerprint

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> Example:
        view = int(self.views[index])
        return {
            "world_to_camera": self.scene.world_to_camera[view],
            "intrinsics": self.scene.intrinsics[view],
        }

    def identity(self, index: int) -> str:
        return self.scene.names[int(self.views[index])]


@dataclass(frozen=True)
class RenderViews:
    """Renders the views of a batch, each on the device that holds its row."""

    settings: RenderSettings
    background: Color = BLACK

    def __call__(self, gaussians: Gaussians, active_degree: jax.Array, batch: Batch) -> BatchResult:
        def of_device(gaussians, active_degree, cameras):
            def one(row: jax.Array):
                camera = camera_of(cameras, row)
                output = render(
                    gaussians,
                    camera,
                    self.settings,
                    background=jnp.array(self.background, jnp.float32),
                    active_degree=active_degree,
                )
                return output.image, output.overflow, output.pairs_needed

            return jax.lax.map(one, jnp.arange(len(cameras["intrinsics"])))

        cameras = {name: batch[name] for name in ("world_to_camera", "intrinsics")}
        if not jax.sharding.get_abstract_mesh().empty:
            # Kernels are not partitioned by the compiler, and Gaussians that lie sharded are
            # gathered: a rendering is not split.
            of_device = jax.shard_map(
                of_device, in_specs=(P(), P(), BATCH), out_specs=BATCH, check_vma=False
            )
        image, overflow, pairs_needed = of_device(gaussians, active_degree, cameras)
        return BatchResult(rows=(overflow, pairs_needed), local=image)


def evaluate(
    scene: Scene,
    views: np.ndarray,
    gaussians: Gaussians,
    settings: RenderSettings,
    active_degree: jax.Array,
    layout: Layout,
    lpips: Lpips | None = None,
    *,
    background: Color = BLACK,
    corrected: bool = False,
) -> Evaluation:
    """Scores of held-out views, of as many training views (`train_...`), and their gap.

    Pictures of some views are the same ones at each evaluation, to be compared; small ones are of
    the worst views (`splats.held_out_table`).

    Args:
      views: indices of the held-out views into the scene.
      gaussians: with `alive`, see `splats.render.render`.
      settings: a view that needs more pairs than these have room for gets it.
      lpips: a further metric.
      background: of renderings and transparent photographs.
      corrected: also `corrected_psnr`, after the affine color fit.
    """
    shown = spread_over(scene.train, len(views))
    source = CameraSource(scene, np.concatenate([views, shown]))
    pictured = set(spread_over(np.arange(len(views)), PICTURES).tolist())

    def examine(index: int, image: np.ndarray) -> tuple[ViewScores, Pictures]:
        view = int(source.views[index])
        scores = score_view(scene, view, image, lpips, background=background, corrected=corrected)
        if index >= len(views):
            return scores, {}
        picture = comparison(scene.view_on(view, background), image)
        pictures = {small_name(scene, view): small(picture)}
        if index in pictured:
            pictures[picture_name(scene, view)] = picture
        return scores, pictures

    renderer = RenderViews(settings, background)
    swept = _rendered(gaussians, active_degree, source, renderer, layout, examine)
    scores = list(
        from_all_hosts({index: own for index, (own, _) in swept.examined.items()}).values()
    )
    table = held_out_table(scene, views, scores[: len(views)])
    kept = {*table.pictures, *(picture_name(scene, int(views[index])) for index in pictured)}
    images = {
        name: picture
        for _, pictures in swept.examined.values()
        for name, picture in pictures.items()
        if name in kept
    }
    metrics = summary(scores[: len(views)], scores[len(views) :])
    return Evaluation(metrics, images, {"held_out": table})


def _rendered(
    gaussians: Gaussians,
    active_degree: jax.Array,
    source: CameraSource,
    renderer: RenderViews,
    layout: Layout,
    examine: Callable[[int, np.ndarray], tuple[ViewScores, Pictures]],
) -> Swept:
    """All views, complete: where pairs did not fit, everything again with room for them."""
    while True:
        arguments = (gaussians, active_degree)
        # One view at a time and device: photographs are large.
        swept = over_batches(renderer, arguments, source, 1, layout, workers=1, examine=examine)
        overflow, pairs_needed = swept.rows
        if not overflow.any():
            return swept
        settings = with_room(renderer.settings, int(pairs_needed.max()))
        renderer = replace(renderer, settings=settings)


def with_room(settings: RenderSettings, pairs: int) -> RenderSettings:
    """Settings with room for so many pairs and at least twice as many as now.

    In one go where it can be told, since every capacity is compiled.
    """
    return replace(settings, pair_capacity=max(2 * settings.pair_capacity, 1 << pairs.bit_length()))


@functools.partial(jax.jit, static_argnames="settings")
def _render(gaussians, camera, settings, active_degree, background):
    """As `render`; on a mesh, whole on every device, so that every process can read it."""

    def whole(gaussians, camera, active_degree, background):
        return render(
            gaussians, camera, settings, background=background, active_degree=active_degree
        )

    if not jax.sharding.get_abstract_mesh().empty:
        whole = jax.shard_map(whole, in_specs=P(), out_specs=P(), check_vma=False)
    return whole(gaussians, camera, active_degree, background)


def complete_rendering(
    gaussians: Gaussians,
    camera: Camera,
    settings: RenderSettings,
    active_degree: jax.Array,
    background: Color = BLACK,
) -> tuple[np.ndarray, RenderSettings]:
    """One view, float32 [H, W, 3], and the settings with room for its pairs."""
    behind = np.array(background, np.float32)
    output = _render(gaussians, camera, settings, active_degree, behind)
    while bool(output.overflow):
        settings = with_room(settings, int(output.pairs_needed))
        output = _render(gaussians, camera, settings, active_degree, behind)
    return np.asarray(output.image), settings


def view_renderer(
    cameras: Arrays,
    gaussians: Gaussians,
    settings: RenderSettings,
    active_degree: jax.Array,
    background: Color = BLACK,
) -> RenderView:
    """Renders views; a view that needs more pairs gets them.

    Args:
      cameras: world_to_camera [V, 4, 4] and intrinsics [V, 3, 3].
      gaussians: with `alive`, see `splats.render.render`.
    """

    def render_view(view: int) -> np.ndarray:
        nonlocal settings
        camera = camera_of(cameras, jnp.int32(view))
        image, settings = complete_rendering(gaussians, camera, settings, active_degree, background)
        return image

    return render_view


@jax.jit
def _scores(
    rendered: jax.Array, true: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """PSNR and SSIM, compiled as one program for each size of views."""
    return psnr(rendered, true, mask), metric_ssim(rendered, true, mask)


_psnr = jax.jit(psnr)


def score_view(
    scene: Scene,
    view: int,
    rendered: np.ndarray,
    lpips: Lpips | None = None,
    *,
    background: Color = BLACK,
    corrected: bool = False,
) -> ViewScores:
    """Scores of one view (index into the scene), and how many of its pixels count.

    Args:
      rendered: float32 [H, W, 3] of the padded size.
      lpips: a further metric, under the name of its variant; pixels that do not count are left out
        as in `splats.metrics.lpips.distance`.
      background: that was rendered; transparent photographs get the same.
      corrected: also `corrected_psnr`, after the affine color fit.
    """
    true = scene.view_on(view, background)
    rendered = rendered[: true.shape[0], : true.shape[1]]
    mask = valid = None
    pixels = true.shape[0] * true.shape[1]
    if scene.valid is not None:
        valid = scene.valid[view, : true.shape[0], : true.shape[1]]
        pixels = int(valid.sum())
        mask = jnp.asarray(valid, jnp.float32)
    found = _scores(jnp.asarray(rendered), jnp.asarray(true), mask)
    scores = {"psnr": float(found[0]), "ssim": float(found[1]), "pixels": float(pixels)}
    if corrected:
        fitted = fit_affine(np.clip(rendered, 0.0, 1.0), true, valid)
        scores["corrected_psnr"] = float(_psnr(jnp.asarray(fitted), jnp.asarray(true), mask))
    if lpips is not None:
        scores[f"lpips_{lpips.name}"] = float(lpips(rendered, true, valid))
    return scores


def summary(held_out: Sequence[ViewScores], train: Sequence[ViewScores]) -> dict[str, float]:
    """Metrics from the scores of each view: means, and the sum of the pixels."""
    metrics = _means(held_out)
    metrics["views"] = float(len(held_out))
    metrics["pixels"] = float(sum(scores["pixels"] for scores in held_out))
    seen = _means(train)
    del seen["pixels"]
    seen.pop("corrected_psnr", None)  # training views have the colors that the grid was fitted to
    metrics |= {f"train_{name}": value for name, value in seen.items()}
    metrics["gap_psnr"] = seen["psnr"] - metrics["psnr"]
    return metrics


def _means(views: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([scores[name] for scores in views])) for name in views[0]}


def spread_over(indices: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the indices, evenly spread."""
    if len(indices) <= count:
        return indices
    return indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]


def comparison(true: np.ndarray, rendered: np.ndarray) -> np.ndarray:
    """uint8 [H, 3 W, 3]: photograph, rendering, absolute error times 4."""
    rendered = np.clip(rendered[: true.shape[0], : true.shape[1]], 0.0, 1.0)
    error = np.clip(ERROR_GAIN * np.abs(true - rendered), 0.0, 1.0)
    return np.rint(255.0 * np.concatenate([true, rendered, error], axis=1)).astype(np.uint8)


def picture_name(scene: Scene, view: int) -> str:
    """Name of a view's picture, without ending."""
    stem = scene.names[view].rpartition(".")[0] or scene.names[view]
    return f"view_{stem.replace('/', '_')}"

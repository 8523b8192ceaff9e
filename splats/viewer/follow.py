"""The newest checkpoint of a work folder, again and again while a run goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from splats.evaluation import complete_rendering
from splats.export import trained_cloud
from splats.formats import GaussianCloud
from splats.render import RenderSettings
from splats.render.camera import Camera
from training.checkpoint.restore import restored
from training.checkpoint.store import CheckpointReader
from training.evaluation import read_evaluations
from training.storage import PathLike

if TYPE_CHECKING:
    from splats.task import SplatTask
    from training.state import TrainState


@dataclass(frozen=True)
class Shown:
    """One checkpoint: its Gaussians in the world of training, and what was said about it.

    `total`: updates of the whole run.
    """

    task: SplatTask
    state: TrainState
    step: int
    total: int
    cloud: GaussianCloud
    scores: dict[str, float]


def read_shown(workdir: PathLike, which: str, task: SplatTask | None = None) -> Shown:
    """Restores a checkpoint; `task` of an earlier call saves reading the photographs again.

    Raises:
      InputError: no work folder.
      CheckpointError: no such checkpoint.
    """
    program, state, step = restored(workdir, which, task)
    loaded: SplatTask = program.task  # type: ignore[assignment]
    cloud = trained_cloud(loaded, state, normalized=True).cloud
    return Shown(loaded, state, step, program.total_updates, cloud, scores_of(workdir, step))


def newest_step(workdir: PathLike) -> int | None:
    """The newest complete checkpoint, None where there is none yet."""
    return CheckpointReader(workdir).latest()


def scores_of(workdir: PathLike, step: int) -> dict[str, float]:
    """Metrics of the newest evaluation up to `step`, with its own `step`; empty without one."""
    earlier = read_evaluations(workdir, step)
    return earlier[-1] if earlier else {}


def status(shown: Shown, total: int | None) -> str:
    """The state of the run in Markdown."""
    of = f" of {total:,}" if total else ""
    lines = [
        f"**step {shown.step:,}**{of}",
        f"{len(shown.cloud):,} Gaussians, harmonics of degree {shown.cloud.degree}",
    ]
    scores = shown.scores
    if scores:
        lines.append(
            f"held out: {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f} "
            f"(training views {scores['train_psnr']:.2f} dB) at step {int(scores['step']):,}"
        )
        lines += [
            f"{name}: {value:.3f}" for name, value in scores.items() if name.startswith("lpips_")
        ]
    else:
        lines.append("not evaluated yet")
    return "  \n".join(lines)


class Renderings:
    """Exact renderings of a checkpoint; room for pairs that was needed once is kept."""

    def __init__(self) -> None:
        self.pair_capacity = 0

    def render(
        self,
        shown: Shown,
        world_to_camera: np.ndarray,
        intrinsics: np.ndarray,
        width: int,
        height: int,
        size: float = 1.0,
        faintest: float = 0.0,
    ) -> np.ndarray:
        """uint8 [height, width, 3] with all that training uses: background, harmonics, filters.

        Args:
          world_to_camera: [4, 4]; intrinsics: [3, 3], pixels.
          size, faintest: as for `geometry.drawn_cloud`.
        """
        settings: RenderSettings = replace(
            shown.task.settings,
            width=width,
            height=height,
            render_depth=False,
            pair_capacity=max(self.pair_capacity, shown.task.sizes.pair_capacity),
        )
        gaussians: dict[str, Any] = dict(shown.state.params["gaussians"])
        opacity = jax.nn.sigmoid(gaussians["opacities"])
        gaussians["scales"] = gaussians["scales"] + np.float32(np.log(size))
        gaussians["alive"] = shown.state.model_state.alive & (opacity >= faintest)
        fx, fy, cx, cy = (np.float32(intrinsics[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        camera = Camera(world_to_camera.astype(np.float32), fx, fy, cx, cy)  # type: ignore[arg-type]
        degree = shown.task.active_degree(shown.state.applied)
        image, settings = complete_rendering(
            gaussians, camera, settings, degree, shown.task.background
        )
        self.pair_capacity = settings.pair_capacity
        return np.rint(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)

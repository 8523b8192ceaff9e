"""Failures 9 and 10 put back: a loss that never renders, and no held-out views."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats import guards
from splats.data.splits import Split, SplitConfig, make_split
from splats.losses import view_sums
from splats.task import SplatTask
from tests.conftest import quickly_compiled
from tests.splats.scenes import (
    batches,
    make_program,
    small_scene,
    small_task,
)
from training.config import GuardConfig
from training.errors import ConfigError, GuardStop
from training.guards.book import GuardBook
from training.guards.start import split_overlap
from training.guards.watch import ZeroGradient
from training.loss import LossOutput, Total
from training.typed import build


class NeverRenders(SplatTask):
    """The loss of the failed run: penalties on parameters under the names of image terms."""

    def loss(self, params, context, batch, key):
        g = params["gaussians"]
        one = jnp.float32(1.0)
        penalties = (
            1e-4 * jnp.mean(jnp.linalg.norm(g["means"], axis=1))
            + 1e-3 * jnp.mean(jnp.exp(g["scales"]))
            + 1e-2 * jnp.mean(jnp.abs(jax.nn.sigmoid(g["opacities"]) - 0.5))
            + 1e-4 * jnp.mean(jnp.abs(g["sh0"]))
        )
        return LossOutput(
            terms={"l1": Total(penalties, one), "ssim": Total(penalties, one)},
            model_state=context.model_state,
            metrics={"visible": Total(jnp.float32(250.0), one)},
            suppress={"overflow": jnp.zeros((), bool)},
        )


def first_failure(task):
    """The guard that stops a run of this task before its first update."""
    program = make_program(task)
    with quickly_compiled(), jax.set_mesh(program.layout.mesh):
        batch = jax.tree.map(lambda leaf: leaf[0], batches(program, range(1)))
        verdicts = task.guards().start(program.initial_state(), batch, program.resident)
    book = GuardBook(GuardConfig())
    with pytest.raises(GuardStop) as stop:
        for verdict in verdicts:
            book.require(verdict, "start")
    return stop.value


def test_9_a_loss_of_parameters_only_is_stopped_before_the_first_update():
    task = small_task()
    fake = NeverRenders(task.config, task.world, task.sizes)
    stop = first_failure(fake)
    assert stop.guard == "pixel-dependence" and stop.exit_code == 3
    assert "does not compare" in str(stop)


def test_9_a_renderer_that_returns_a_constant_image_is_stopped(monkeypatch):
    real = view_sums.render

    def constant(gaussians, camera, settings, **options):
        output = real(gaussians, camera, settings, **options)
        return output._replace(image=jnp.full_like(output.image, 0.5))

    monkeypatch.setattr(view_sums, "render", constant)
    assert first_failure(small_task()).guard in ("pixel-dependence", "gradient-health")


def test_9_the_real_loss_passes_all_start_guards():
    task = small_task()
    program = make_program(task)
    with quickly_compiled(), jax.set_mesh(program.layout.mesh):
        batch = jax.tree.map(lambda leaf: leaf[0], batches(program, range(1)))
        verdicts = task.guards().start(program.initial_state(), batch, program.resident)
    assert [v.name for v in verdicts] == [
        "pixel-dependence",
        "gradient-health",
        "finite-differences",
    ]
    assert all(v.passed for v in verdicts), [v.sentence for v in verdicts]


def test_9_gradients_of_exactly_zero_stop_the_run_within_its_patience():
    watch = ZeroGradient(20, small_task().guards().quiet_groups)
    incidents = [watch.check(step, {"grad_norm/means": 0.0}) for step in range(1, 30)]
    assert incidents[18] is None and not incidents[19].warning


def test_10_a_split_without_held_out_views_cannot_be_made():
    names = tuple(f"{i}.png" for i in range(5))
    with pytest.raises(ConfigError):
        Split(names, ())
    with pytest.raises(ConfigError):
        build(SplitConfig, {"mode": "fraction", "fraction": 1.0}, "split")
    with pytest.raises(ConfigError):
        make_split(names[:1], SplitConfig())


@pytest.mark.parametrize("count", [0, 2])
def test_10_a_scene_without_held_out_views_or_with_shared_ones_cannot_be_made(count):
    """A scene knows its views by its split alone, and a split proves itself when it is made."""
    names = small_scene().names
    with pytest.raises(ConfigError, match="test"):
        replace(small_scene(), split=replace(small_scene().split, train=names, test=names[:count]))


def test_10_evaluating_on_training_views_is_refused_by_name():
    sources = small_task().sources()
    assert split_overlap(sources.train, dict(sources.evaluation)).passed
    assert not split_overlap(sources.train, {"test": sources.train}).passed


def test_10_a_psnr_computed_from_the_loss_would_be_flagged():
    fake = 40 - 10 * np.log10(0.0372)
    verdict = guards.plausible_psnr([{"psnr": fake}], photographs=True)
    assert verdict is not None and not verdict.passed and "54.3" in verdict.sentence

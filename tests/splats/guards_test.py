"""The guards on functions whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats import guards
from splats.checks import start as start_checks
from tests.splats.scenes import make_program, small_scene, small_task
from training.gradients import coefficients_of


@pytest.fixture
def toy(new_key):
    gaussians = {
        "means": jax.random.normal(new_key(), (20, 3)),
        "opacities": jax.random.normal(new_key(), (20,)),
        "scales": jnp.zeros((20, 3)),
        "sh0": jax.random.normal(new_key(), (20, 1, 3)),
    }

    def loss(g):
        return sum(jnp.mean(jnp.sin(g[name])) for name in ("means", "opacities", "scales", "sh0"))

    return loss, gaussians


def test_true_gradients_pass_the_finite_differences(toy):
    loss, gaussians = toy
    assert guards.finite_differences(loss, jax.grad(loss)(gaussians), gaussians).passed


@pytest.mark.parametrize("name", ["means", "opacities", "sh0"])
def test_a_gradient_that_is_half_of_the_true_one_is_refused(toy, name):
    loss, gaussians = toy
    gradients = jax.grad(loss)(gaussians)
    verdict = guards.finite_differences(loss, gradients | {name: 0.5 * gradients[name]}, gaussians)
    assert not verdict.passed and not verdict.warning and name in verdict.sentence


@pytest.mark.parametrize("opacity", [0.02, 0.1, 0.7])
def test_the_effect_of_the_cut_off_is_that_of_a_round_gaussian(opacity):
    axis = np.linspace(-4.0, 4.0, 1601)
    x, y = np.meshgrid(axis, axis)

    def drawn(opacity, shift):
        alpha = opacity * np.exp(-((x - shift) ** 2 + y**2) / 2)
        return np.where(alpha >= 1 / 255, alpha, 0.0)

    step, area = 0.1, drawn(opacity, 0.0)
    true = np.sum(x * (drawn(opacity, step) - drawn(opacity, -step))) / (2 * step)
    inside = np.sum(x * x * area)
    assert guards.cutoff_effect("means", opacity) == pytest.approx(true / inside - 1, rel=0.02)
    true = np.sum(drawn(1.1 * opacity, 0.0) - drawn(0.9 * opacity, 0.0)) / (0.2 * opacity)
    inside = np.sum(area / opacity)
    assert guards.cutoff_effect("opacities", opacity) == pytest.approx(true / inside - 1, rel=0.03)
    assert guards.cutoff_effect("sh0", opacity) == 0.0


@pytest.fixture(scope="module")
def scene_loss():
    """(Gaussians, view) -> whole loss and gradients of a scene at its start; and the Gaussians."""
    task = small_task()
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
    resident = {name: jnp.asarray(array) for name, array in task.resident().items()}
    whole = coefficients_of(task, state)

    @jax.jit
    def value_and_gradient(gaussians, view):
        batch = {"view": view[None], "position": jnp.zeros(1, jnp.uint32)}

        def value(moved):
            return start_checks._objective(task, moved, whole, state, batch, resident)

        (loss, _), gradients = jax.value_and_grad(value, has_aux=True)(gaussians)
        return loss, gradients

    return value_and_gradient, state.params["gaussians"]


def test_views_of_a_scene_pass_and_gradients_of_wrong_size_do_not(scene_loss):
    value_and_gradient, gaussians = scene_loss
    for view in jnp.arange(0, len(small_scene().train), 4):
        gradients = value_and_gradient(gaussians, view)[1]

        def loss(moved, view=view):
            return value_and_gradient(moved, view)[0]

        verdict = guards.finite_differences(loss, gradients, gaussians)
        assert verdict.passed, verdict.sentence
        faint = gaussians | {"opacities": jnp.full_like(gaussians["opacities"], -3.2)}  # 0.04
        gradients_of_faint = value_and_gradient(faint, view)[1]
        verdict = guards.finite_differences(loss, gradients_of_faint, faint)
        assert verdict.passed, verdict.sentence
        for name, factor in [("means", 0.5), ("means", 2.0), ("opacities", 2.0), ("sh0", 2.0)]:
            if view == 0:
                wrong = gradients | {name: factor * gradients[name]}
                assert not guards.finite_differences(loss, wrong, gaussians).passed, (view, name)


@pytest.mark.parametrize(
    "errors, passed, probed",
    [
        ((0.0, 0.05, 0.09), True, 3),  # the median of five is known
        ((9.0, 9.0, 0.0, 0.0, 0.0), True, 5),
        ((0.0, 0.0, 9.0, 9.0, 9.0), False, 5),
        ((np.inf,) * 5, False, 5),
    ],
)
def test_most_of_five_gaussians_decide(toy, monkeypatch, errors, passed, probed):
    loss, gaussians = toy
    told = []

    def next_error(*_):
        told.append(errors[len(told) % len(errors)])
        return told[-1]

    monkeypatch.setattr(guards, "_difference_error", next_error)
    gradients = jax.grad(loss)(gaussians)
    assert guards.finite_differences(loss, gradients, gaussians).passed == passed
    parameters = 3 if passed else 1  # the first that is wrong ends it
    assert len(told) == parameters * probed


def test_gradient_health_exempts_rotations_and_higher_harmonics_only(toy):
    loss, gaussians = toy
    gradients = jax.grad(loss)(gaussians) | {
        "quats": jnp.zeros((20, 4)),
        "shN": jnp.zeros((20, 15, 3)),
    }
    assert guards.gradient_health(gradients, 20.0).passed
    for name in ("means", "opacities", "scales", "sh0"):
        for bad in (0.0, jnp.nan):
            sick = gradients | {name: gradients[name] * bad}
            verdict = guards.gradient_health(sick, 20.0)
            assert not verdict.passed and name in verdict.sentence
    assert not guards.gradient_health(gradients, 0.0).passed


def test_gradient_health_warns_when_few_visible_gaussians_are_reached(toy):
    loss, gaussians = toy
    gradients = jax.grad(loss)(gaussians)
    gradients["means"] = gradients["means"].at[3:].set(0.0)
    verdict = guards.gradient_health(gradients, 20.0)
    assert verdict.warning and "only 3" in verdict.sentence


def test_three_identical_evaluations_are_refused_two_are_not():
    rows = [{"psnr": 20.0}, {"psnr": 21.5}, {"psnr": 21.5}]
    assert guards.identical_evaluations(rows) is None
    verdict = guards.identical_evaluations([*rows, {"psnr": 21.5}])
    assert verdict is not None and not verdict.passed


def test_impossible_scores_on_photographs_are_flagged_but_not_on_drawings():
    verdict = guards.plausible_psnr([{"psnr": 30.0, "train_psnr": 54.2}], photographs=True)
    assert verdict is not None and verdict.warning and "54.2" in verdict.sentence
    assert guards.plausible_psnr([{"psnr": 54.2}], photographs=False) is None
    fine = guards.plausible_psnr([{"psnr": 30.0}], photographs=True)
    assert fine is not None and fine.passed


def scored(*pairs):
    """Evaluations of (held-out, training) PSNR, 200 updates apart."""
    return [
        {"step": 200.0 * (i + 1), "psnr": test, "train_psnr": train}
        for i, (test, train) in enumerate(pairs)
    ]


def test_views_learned_by_heart_are_told_with_both_scores_then_and_now():
    verdict = guards.held_out_falls(scored((19.0, 20.0), (20.6, 23.5), (20.4, 25.0), (20.1, 26.2)))
    assert not verdict.passed and verdict.warning
    assert "from 20.60 to 20.10 dB since step 400" in verdict.sentence
    assert "from 23.50 to 26.20 dB" in verdict.sentence


@pytest.mark.parametrize(
    "history",
    [
        scored((19.0, 20.0), (20.6, 23.5), (20.4, 25.0)),  # within what few views move by
        scored((20.6, 23.5), (15.0, 16.0)),  # an opacity reset: training views are worse too
        scored((20.1, 23.5), (20.6, 23.0)),
    ],
)
def test_scores_that_move_together_are_no_finding(history):
    assert guards.held_out_falls(history).passed


def test_one_evaluation_says_nothing_of_falling():
    assert guards.held_out_falls(scored((20.0, 21.0))) is None
    names = [verdict.name for verdict in guards.of_evaluations(scored((9, 9), (8, 10)), True)]
    assert "held-out-falls" in names


def test_three_idle_refinements_warn_with_the_quantiles():
    idle = {
        "densify/cloned": 0.0,
        "densify/split": 0.0,
        "densify/pruned": 0.0,
        "densify/gradient_q50": 1e-6,
        "densify/gradient_q100": 3e-5,
        "densify/threshold": 2e-4,
    }
    assert guards.idle_refinement([idle, idle]) is None
    verdict = guards.idle_refinement([idle, idle, idle])
    assert verdict is not None and verdict.warning
    assert "3.00e-05" in verdict.sentence and "2.00e-04" in verdict.sentence
    busy = guards.idle_refinement([idle, idle, idle | {"densify/split": 1.0}])
    assert busy is not None and busy.passed

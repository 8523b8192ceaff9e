"""One background for renderings and photographs: in the loss, in scores and in pictures.

Without any Gaussian a rendering is the background, so that every figure has a closed form: the
difference from the photograph is opacity times (color - background).
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.data import load_scene
from splats.losses.view_sums import random_backgrounds
from splats.predict import camera_path, rendered
from tests.splats.scenes import losses, make_program, small_config, task_of
from tests.splats.transparent import COLOR, write_transparent_scene
from training.evaluation import evaluate_state
from training.gradients import context_of

pytestmark = pytest.mark.usefixtures("quick_compilation")
BACKGROUNDS = {"auto": (1, 1, 1), "black": (0, 0, 0), "#3366ff": (0.2, 0.4, 1.0)}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return load_scene(write_transparent_scene(tmp_path_factory.mktemp("transparent")))


def task_before(scene, background, **changes):
    config = small_config(**changes)
    model = replace(config.model, initialization="random", random_points=200)
    config = replace(config, model=model, scene=replace(config.scene, background=background))
    return task_of(config, scene)


def without_gaussians(state):
    return replace(
        state, model_state=replace(state.model_state, alive=jnp.zeros_like(state.model_state.alive))
    )


def opacity(scene):
    return scene.alpha[0] / 255.0  # all views look alike


def difference(scene, background):
    """[H, W, 3] of photograph and background."""
    return opacity(scene)[..., None] * (np.array(COLOR) / 255.0 - np.asarray(background))


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_scores_and_pictures_have_the_background_on_both_sides(scene, name):
    task = task_before(scene, name)
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        state = without_gaussians(program.initial_state())
        result = evaluate_state(program, state)
        (frame,) = rendered(task, state, camera_path("orbit:1", task))
    error = np.mean(difference(scene, BACKGROUNDS[name]) ** 2)
    assert result.metrics["psnr"] == pytest.approx(-10 * np.log10(error), abs=0.05)
    for picture in [*result.images.values(), np.tile(frame, (1, 2, 1))]:
        true_corner, drawn_corner = picture[0, 0], picture[0, picture.shape[1] // 3]
        expected = np.rint(255 * np.array(BACKGROUNDS[name]))
        np.testing.assert_array_equal(true_corner, expected)
        np.testing.assert_array_equal(drawn_corner, expected)


def terms(program, views=1):
    with jax.set_mesh(program.layout.mesh):
        state = without_gaussians(program.initial_state())
        batch = {"view": jnp.arange(views), "position": jnp.arange(views, dtype=jnp.uint32)}
        context = context_of(state, program.resident, 60)
        output = program.task.loss(state.params, context, batch, context.update_key)
        colors = random_backgrounds(context.update_key, batch["position"])
    return {name: float(total.mean()) for name, total in output.terms.items()}, np.array(colors)


@pytest.mark.slow
def test_the_loss_sees_the_same_background_and_the_opacity(scene):
    found, _ = terms(make_program(task_before(scene, "auto")))
    assert found["l1"] == pytest.approx(np.abs(difference(scene, (1, 1, 1))).mean(), rel=0.01)
    assert found["alpha"] == pytest.approx(opacity(scene).mean(), rel=1e-5)


def test_a_random_background_is_behind_the_photograph_too(scene):
    task = task_before(scene, "auto", losses=losses(random_background=True))
    found, colors = terms(make_program(task))
    expected = np.abs(difference(scene, colors[0])).mean()
    assert found["l1"] == pytest.approx(expected, rel=0.01)
    assert abs(expected - np.abs(difference(scene, (1, 1, 1))).mean()) > 0.01


def test_opacity_is_compared_only_where_it_is_known_and_asked_for(scene):
    assert "alpha" in task_before(scene, "auto").loss_terms
    assert "alpha" not in task_before(scene, "auto", losses=losses(alpha=0.0)).loss_terms
    assert "alpha" not in task_of(small_config(), replace(scene, alpha=None)).loss_terms


@pytest.mark.slow
def test_nothing_is_painted_around_a_transparent_object(scene):
    """With another background in the photographs than in the rendering: 11.5 dB."""
    densify = replace(small_config().densify, strategy="none")
    task = task_before(scene, "auto", densify=densify, total=small_config().total)
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        for step in range(150):
            batch = {
                "view": jnp.array([[step % len(scene.train)]], jnp.int32),
                "position": jnp.array([[step]], jnp.uint32),
            }
            state, _ = program.step(state, batch)
        result = evaluate_state(program, state)
        on_black = evaluate_state(make_program(task_before(scene, "black")), state)
    # What is white for lack of Gaussians turns black with the background; a shell would stay.
    assert result.metrics["psnr"] > 16.5
    assert on_black.metrics["psnr"] > 15

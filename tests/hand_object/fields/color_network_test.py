"""The color network: derived widths, inputs in their order, all of which matter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import preset
from hand_object.fields.color_network import color, init_color, init_pose_code, pose_code

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    ("name", "frame_code", "count"),
    [("seed", False, 530_691), ("hold", False, 267_523), ("hold", True, 275_715)],
)
def test_parameters_are_as_many_as_in_the_original(name, frame_code, count):
    make = lambda key: init_color(key, preset(name), frame_code=frame_code)  # noqa: E731
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(make, jax.random.key(0)))
    assert count == sum(leaf.size for path, leaf in leaves if path[-1].key != "gain")


def test_every_input_moves_the_color(new_key):
    config = preset("smoke")
    params = init_color(new_key(), config, frame_code=True)
    widths = (3, 3, config.color.pose_code, config.sdf.features, config.color.frame_code)
    inputs = [jax.random.normal(new_key(), (40, width)) for width in widths]

    def run(*inputs):
        return color(params, config, *inputs)

    rgb = run(*inputs)
    assert rgb.shape == (40, 3)
    assert np.all((rgb > 0) & (rgb < 1))
    slopes = jax.grad(lambda args: jnp.sum(jnp.square(run(*args))))(inputs)
    for slope in slopes:
        assert np.all(np.any(slope != 0, axis=0))


def test_the_pose_code_is_linear_in_the_pose(new_key):
    config = preset("smoke")
    params = init_pose_code(new_key(), 45, config)
    a, b = jax.random.normal(new_key(), (2, 1, 45))
    zero = pose_code(params, jnp.zeros((1, 45)))
    both = pose_code(params, a) + pose_code(params, b) - zero
    np.testing.assert_allclose(pose_code(params, a + b), both, atol=1e-5)
    assert zero.shape == (1, config.color.pose_code)

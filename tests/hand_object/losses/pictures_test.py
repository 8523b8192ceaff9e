"""Color and mask terms: what counts, and what nothing may be concluded from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.data.sequence import BACKGROUND, OBJECT, RIGHT, UNKNOWN
from hand_object.losses import pictures

THERE = jnp.array([[True, True, True, False]])


def test_color_is_summed_over_channels_and_averaged_over_pixels_that_count():
    found, wanted = jnp.full((1, 3, 3), 0.5), jnp.zeros((1, 3, 3))
    total = pictures.rgb(found, wanted, jnp.array([[1.0, 1.0, 0.0]]))
    assert float(total.mean()) == pytest.approx(1.5)
    assert float(total.weight) == 2


def test_pixels_of_a_node_without_a_pose_are_not_explained():
    classes = jnp.array([[BACKGROUND, OBJECT, RIGHT, UNKNOWN]])
    absent = THERE.at[0, RIGHT].set(False)
    np.testing.assert_array_equal(pictures.explained(classes, THERE), [[1, 1, 1, 1]])
    np.testing.assert_array_equal(pictures.explained(classes, absent), [[1, 1, 0, 1]])


def test_pixels_without_a_mask_weigh_nothing_in_the_mask_term():
    semantics = jnp.full((1, 2, 4), 0.25)
    classes = jnp.array([[UNKNOWN, OBJECT]])
    total = pictures.mask(semantics, classes, jnp.ones((1, 2)))
    assert float(total.weight) == 1
    assert float(total.mean()) == pytest.approx(0.75**2 + 3 * 0.25**2)


def test_an_object_behind_a_hand_costs_nothing():
    """Opacity of the object alone is free under pixels of the hand, and not on background."""
    classes = jnp.array([[RIGHT, BACKGROUND]])

    def cost(opacity):
        return pictures.sparse({"object": opacity}, classes, jnp.ones((1, 2))).sum

    np.testing.assert_array_equal(jax.grad(cost)(jnp.full((1, 2), 0.3)), [[0.0, 1.0]])


def test_what_hides_decides_the_mask_term():
    """Shares of what is seen: only a wrong order costs, not what lies behind."""
    classes = jnp.array([[RIGHT]])
    hidden = jnp.array([[[0.0, 0.0, 1.0, 0.0]]])
    before = jnp.array([[[0.0, 1.0, 0.0, 0.0]]])
    assert float(pictures.mask(hidden, classes, jnp.ones((1, 1))).mean()) == 0
    assert float(pictures.mask(before, classes, jnp.ones((1, 1))).mean()) == 2

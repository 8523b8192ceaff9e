"""Positional encoding: the order of the originals, and octaves that open with the updates."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from hand_object.config import EncodingConfig
from hand_object.fields.positional_encoding import encode, octave_weights


def test_order_is_point_then_sin_and_cos_of_each_octave():
    x = np.array([[0.3, -0.7, 1.1], [0.0, 0.2, -0.4]], np.float32)
    expected = [x]
    for octave in range(3):
        expected += [np.sin(2.0**octave * x), np.cos(2.0**octave * x)]
    np.testing.assert_allclose(encode(jnp.asarray(x), 3), np.hstack(expected), atol=1e-6)
    assert encode(jnp.asarray(x), 6).shape == (2, 39)
    assert encode(jnp.zeros((1, 4)), 10).shape == (1, 84)


def test_octaves_open_one_after_the_other():
    config = EncodingConfig(frequencies=6, coarse_until=1000, fine_from=10_000)
    np.testing.assert_array_equal(octave_weights(1000, config), np.zeros(6))
    np.testing.assert_allclose(octave_weights(10_000, config), np.ones(6), atol=1e-6)
    # Half of the second octave: one and a half sixths of the span.
    np.testing.assert_allclose(
        octave_weights(1000 + 9000 // 4, config), [1, 0.5, 0, 0, 0, 0], atol=1e-5
    )
    steps = np.stack([octave_weights(step, config) for step in range(0, 12_000, 1500)])
    assert np.all(np.diff(steps, axis=0) >= -1e-6)


def test_a_closed_octave_is_not_there():
    x = jnp.array([[0.3, -0.7, 1.1]])
    got = encode(x, 2, jnp.array([1.0, 0.0]))
    assert np.all(got[0, 9:] == 0)
    np.testing.assert_array_equal(got[:, :9], encode(x, 1))

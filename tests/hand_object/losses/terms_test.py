"""Which terms there are, and terms on fields and poses against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.config import preset
from hand_object.fields.sdf_network import init_sdf, signed_distance
from hand_object.loss_config import LossConfig
from hand_object.losses import fields, poses
from hand_object.losses.terms import loss_terms, mean_of
from training.loss import Total


def test_terms_without_a_coefficient_are_left_out():
    terms = loss_terms(LossConfig(sparse=0.5), masks=True, hands=True)
    assert set(terms) == {"rgb", "mask", "eikonal", "sparse"}
    assert terms["sparse"].coefficient == 0.5


def test_a_video_without_masks_is_not_stopped_for_its_mask_term():
    assert not loss_terms(LossConfig(), masks=False, hands=True)["mask"].required
    assert loss_terms(LossConfig(), masks=True, hands=True)["mask"].required


def test_nodes_count_alike_and_empty_ones_not_at_all():
    parts = [Total(jnp.float32(6), jnp.float32(2)), Total(jnp.float32(10), jnp.float32(10))]
    nothing = Total(jnp.float32(0), jnp.float32(0))
    assert float(mean_of([*parts, nothing]).mean()) == 2


def test_eikonal_is_zero_for_unit_gradients_and_finite_at_none():
    unit = jnp.array([[1.0, 0, 0], [0, -1, 0], [5.0, 0, 0]])
    assert float(fields.eikonal(unit, jnp.array([1.0, 1, 0])).mean()) == pytest.approx(0, abs=1e-9)
    slope = jax.grad(lambda g: fields.eikonal(g, jnp.ones(1)).sum)(jnp.zeros((1, 3)))
    assert bool(jnp.isfinite(slope).all())


def test_a_field_that_is_its_template_has_no_template_term(new_key):
    config = preset("smoke")
    params = init_sdf(new_key(), config)
    points = jax.random.uniform(new_key(), (64, 3), minval=-1, maxval=1)
    distances = signed_distance(params, config, points)
    same = fields.template(new_key(), params, config, points, distances)
    assert float(same.mean()) == pytest.approx(0, abs=1e-6)
    other = fields.template(new_key(), params, config, points, distances + 0.05)
    assert 0 < float(other.mean()) <= 0.05 + 1e-6


def test_corrections_count_rotations_in_rad_and_shifts_in_decimeters():
    start = {"object": {"rotation": np.zeros((2, 3)), "translation": np.zeros((2, 3))}}
    moved = {"object": {"rotation": jnp.zeros((2, 3)), "translation": jnp.full((2, 3), 0.01)}}
    total = poses.corrections(moved, start)
    assert float(total.mean()) == pytest.approx(0.1**2 / 2)

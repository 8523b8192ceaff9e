"""Terms, windows and micro-batches of the loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.step_test import host_batches, make_program, run
from tests.training.toy import ToyTask, task_with
from training.loss import LossTerm, Total


@pytest.mark.parametrize("traced", [False, True])
def test_window_holds_its_first_update_and_not_its_end(traced):
    factor = LossTerm(0.5, window=(3, 5)).factor
    factor = jax.jit(factor) if traced else factor
    values = [float(factor(jnp.int32(applied), None)) for applied in range(7)]
    assert values == [0, 0, 0, 0.5, 0.5, 0, 0]


def test_coefficient_sees_the_applied_updates_and_the_model_state():
    term = LossTerm(lambda applied, model_state: applied * model_state["scale"])
    assert float(term.factor(jnp.int32(3), {"scale": jnp.float32(0.25)})) == 0.75


def test_term_without_weight_is_zero_and_has_no_gradient():
    assert float(Total(jnp.float32(3.0), jnp.float32(2.0)).mean()) == 1.5

    def value(x):
        return Total(x, jnp.float32(0.0)).mean()

    assert jax.value_and_grad(value)(jnp.float32(3.0)) == (0.0, 0.0)


@pytest.mark.parametrize("parts", [1, 4])
def test_model_state_goes_through_all_micro_batches(parts):
    """The toy task counts the examples that its model state has seen."""
    state, _ = run(make_program(accumulation=parts), host_batches(ToyTask(), 2))
    np.testing.assert_array_equal(state.model_state["seen"], 64)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_term_is_divided_by_its_least_weight_where_the_whole_batch_weighs_less(parts):
    (batch,) = host_batches(ToyTask(), 1)
    norms = {}
    # Weights of 1e-3 sum to 0.03: the micro-batches are each far below the least weight, too.
    for least, share in ((0.0, 1e-3), (1.0, 1e-3), (1.0, 1.0)):
        task = task_with(loss_terms={"error": LossTerm(least_weight=least)})
        program = make_program(task, accumulation=parts)
        weighed = batch | {"w": np.full_like(batch["w"], share)}
        norms[least, share] = run(program, [weighed])[1][0]
    plain, least, heavy = norms.values()
    for name in ("loss", "loss/error", "grad_norm"):
        assert plain[name] == pytest.approx(heavy[name], rel=1e-5)
        assert least[name] == pytest.approx(0.032 * plain[name], rel=1e-5)

"""Hand-off of parameters from one run to the next."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.checkpoint.init_from import initialize
from training.checkpoint.store import CheckpointStore
from training.config import CheckpointConfig
from training.errors import CheckpointError
from training.state import new_state


def params_of(key: jax.Array, width: int = 4) -> dict:
    first, second = jax.random.split(key)
    return {
        "encoder": {"kernel": jax.random.normal(first, (3, width))},
        "head": {"kernel": jax.random.normal(second, (width, 2))},
    }


@pytest.fixture
def stage_one(tmp_path, new_key):
    """Saves parameters as an earlier stage; returns its work folder and them."""

    def save(params: dict):
        store = CheckpointStore(tmp_path, CheckpointConfig())
        store.save(3, new_state(params, None, {}, None, new_key()), {})
        store.close()
        return str(tmp_path)

    return save


def test_all_parameters_are_taken_over(stage_one, new_key):
    source = params_of(new_key())
    taken = initialize(
        {"params": params_of(new_key())}, CheckpointConfig(init_from=stage_one(source))
    )
    jax.tree.map(np.testing.assert_array_equal, taken, {"params": source})


def test_only_included_parameters_are_taken_over(stage_one, new_key):
    source, fresh = params_of(new_key()), params_of(new_key())
    workdir = stage_one(source)
    taken = initialize(
        {"params": fresh},
        CheckpointConfig(init_from=workdir, init_include=("params/encoder/.*",)),
    )["params"]
    np.testing.assert_array_equal(taken["encoder"]["kernel"], source["encoder"]["kernel"])
    np.testing.assert_array_equal(taken["head"]["kernel"], fresh["head"]["kernel"])


def test_other_dimensions_are_refused(stage_one, new_key):
    workdir = stage_one(params_of(new_key(), width=256))
    narrow = {"params": params_of(new_key(), width=32)}
    with pytest.raises(CheckpointError, match=r"params/encoder/kernel\s+saved \(3, 256\)"):
        initialize(narrow, CheckpointConfig(init_from=workdir))


def test_a_field_that_the_source_lacks_is_refused(stage_one, new_key):
    params = params_of(new_key())
    with pytest.raises(CheckpointError, match=r"missing\s+ema"):
        initialize({"params": params, "ema": params}, CheckpointConfig(init_from=stage_one(params)))


def test_values_that_are_not_finite_are_refused_by_name(stage_one, new_key):
    source = params_of(new_key())
    source["head"]["kernel"] = source["head"]["kernel"].at[0, 1].set(jnp.nan)
    workdir = stage_one(source)
    initial = {"params": params_of(new_key())}
    with pytest.raises(CheckpointError, match=r"not finite in params/head/kernel;"):
        initialize(initial, CheckpointConfig(init_from=workdir))
    initialize(initial, CheckpointConfig(init_from=workdir, init_exclude=("params/head/.*",)))

"""Auxiliary terms on a small scene: where they ask the field, what they move, and when."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_object.fields.triplane import HALF_SIDE
from hand_object.grasps import find_grasps
from hand_object.loss_config import SdsPhase
from hand_object.losses.auxiliary import Held, object_distance, sds_total
from hand_object.prior.grid import GridConfig, hand_frame
from hand_object.render.nodes import scene_distance
from hand_object.render.placement import ObjectPlacement
from hand_object.render.rigid import to_scene
from hand_object.render.scene import init_scene
from hand_object.render.scene_placement import placements, start_tables, statics_of
from tests.hand_object.scenes import small_fields, small_opened
from training.paths import named_leaves

pytestmark = pytest.mark.usefixtures("quick_compilation")
FRAMES = jnp.arange(3)


class NoIdea:
    """A prior that guesses that there is no noise."""

    grid = GridConfig(object_size=8, hand_size=8, limit=0.8, cut="tanh")

    def encode(self, object_values, hand_values):
        return jnp.concatenate([object_values, hand_values], axis=-1)

    def decode(self, latent):
        return latent[..., :1], latent[..., 1:]

    def guesses(self, noisy, step):
        del step
        return jnp.zeros_like(noisy), jnp.zeros_like(noisy)


@pytest.fixture(scope="module")
def scene():
    """Model, parameters, static arrays and what is there in each frame."""
    opened, model = small_opened(), small_fields()
    hands = {"right": 3 * (opened.sequence.hands["right"].pose.shape[1] - 1)}
    count = len(opened.sequence)
    params = init_scene(jax.random.key(0), model, hands=hands, frames=count)
    params["poses"] = start_tables(opened.sequence)
    statics = statics_of(opened.sequence, opened.hands)
    grasps = find_grasps(opened, statics)
    return model, params, {"statics": statics, "grasps": grasps, "prior": NoIdea()}


def placed(params, arrays):
    return placements(params["poses"], arrays["statics"], FRAMES, jnp.ones((3, 4), bool))


def test_outside_of_its_cube_the_field_goes_on_as_a_distance(scene):
    model, params, arrays = scene
    thing = placed(params, arrays)["object"]
    assert isinstance(thing, ObjectPlacement)
    line = jnp.linspace(0.0, 3.0 * HALF_SIDE, 13)[:, None] * jnp.array([[1.0, 0, 0]])
    x = to_scene(thing.similarity, jnp.broadcast_to(line[None], (3, 13, 3)))
    node = params["nodes"]["object"]
    found = object_distance(node, model, thing, x, None)
    within = np.asarray(line[:, 0]) <= HALF_SIDE
    # The root beyond the cube adds at most its own smallness.
    asked = scene_distance(node, model, thing, x, None)
    unit = np.asarray(thing.similarity.scale)[:, None]
    np.testing.assert_allclose(found[:, within], asked[:, within], atol=2e-5 * unit.max())
    edge = np.asarray(found)[:, within][:, -1:]
    farther = (np.asarray(line[:, 0]) - HALF_SIDE)[~within][None] * unit
    np.testing.assert_allclose(found[:, ~within] - edge, farther, atol=1e-4 * unit.max())


def test_a_prior_moves_the_object_its_pose_and_the_hand_in_one_frame(scene):
    model, params, arrays = scene
    held = Held("right", hand_frame(small_opened().hands["right"]))
    phase = SdsPhase(1.0)

    def value(params, holding):
        own = {"right": arrays["grasps"]["right"]._replace(holding=holding)}
        total = sds_total(
            params,
            model,
            placed(params, arrays),
            arrays | {"grasps": own},
            FRAMES,
            jax.random.key(3),
            held,
            phase,
            None,
        )
        return total.mean()

    both = jax.jit(jax.value_and_grad(value))
    only_second = jnp.arange(9) == 1
    loss, gradients = both(params, only_second)
    assert loss > 0
    leaves = {path: np.asarray(leaf) for path, leaf in named_leaves(gradients).items()}
    for path in ("poses/right/pose", "poses/object/rotation", "poses/object/translation"):
        moved = np.abs(leaves[path]).reshape(len(leaves[path]), -1).max(axis=1) > 0
        assert moved.tolist() == [frame == 1 for frame in range(9)], path
    for path, leaf in leaves.items():
        inside = path.startswith("poses/") or path.startswith("nodes/object/sdf/")
        assert inside or not leaf.any(), path
    assert max(np.abs(leaf).max() for path, leaf in leaves.items() if "object/sdf" in path) > 0
    nothing, still = both(params, jnp.zeros(9, bool))
    assert nothing == 0 and all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(still))

"""Adaptive density control against a list-based reference that never heard of slots."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from splats.gaussians import densify_default, screen_gradients
from splats.gaussians.densify_default import Thresholds
from splats.gaussians.population import pad_population
from tests.splats.populations import make_population

SCENE_SCALE = 2.0
NO_GRADIENT = 0.0


def reference(population, gradient, thresholds, prune_large):
    """What must exist afterwards: exact copies, children of splits, and the counts.

    Exact copies are (parent, keeps its moments); children (parent, linear scales, opacity), whose
    place depends on the normal draw of the slot that they end up in.
    """
    exact, children, counts = [], [], {"cloned": 0, "split": 0, "pruned": 0}
    for i in np.flatnonzero(np.asarray(population.alive)):
        scales = np.exp(np.asarray(population.gaussians["scales"][i]))
        opacity = 1 / (1 + np.exp(-float(population.gaussians["opacities"][i])))
        high = gradient[i] > thresholds.grow_grad2d
        small = scales.max() <= thresholds.grow_scale3d * SCENE_SCALE
        if high and not small:
            counts["split"] += 1
            scales = scales / 1.6
            if thresholds.revised_opacity:
                opacity = 1 - np.sqrt(1 - opacity)
        gone = opacity < thresholds.prune_opa or (
            prune_large and scales.max() > thresholds.prune_scale3d * SCENE_SCALE
        )
        copies = 2 if high else 1
        counts["cloned"] += int(high and small)
        if gone:
            counts["pruned"] += copies
        elif high and not small:
            children += [(i, scales, opacity)] * 2
        else:
            exact += [(i, True)] + [(i, False)] * (copies - 1)
    return exact, children, counts


@pytest.fixture
def crowd(new_key):
    population = make_population(new_key(), 64, 40)
    opacity = jax.random.uniform(new_key(), (64,)) * 0.03
    population.gaussians["opacities"] = jax.scipy.special.logit(opacity)
    population.gaussians["scales"] = population.gaussians["scales"] - 3.5
    gradient = jax.random.uniform(new_key(), (64,)) * 5e-4
    return population, gradient


@pytest.mark.parametrize("revised", [False, True])
@pytest.mark.parametrize("prune_large", [False, True])
def test_refinement_equals_the_list_reference(crowd, new_key, revised, prune_large):
    before, gradient = crowd
    before = pad_population(before, 128)
    gradient = jnp.pad(gradient, (0, 64))
    thresholds = Thresholds(revised_opacity=revised, grow_scale3d=0.03, prune_scale3d=0.06)
    key = new_key()
    after, counts = jax.jit(densify_default.refine, static_argnums=(3, 5))(
        before, gradient, key, SCENE_SCALE, prune_large, thresholds
    )
    normal = np.asarray(jax.random.normal(key, (128, 3)))
    exact, children, expected = reference(before, np.asarray(gradient), thresholds, prune_large)
    assert expected["cloned"] > 3 and expected["split"] > 3 and expected["pruned"] > 3
    assert {name: int(getattr(counts, name)) for name in expected} == expected
    assert int(counts.dropped) == 0
    alive = np.asarray(after.alive)
    assert alive.sum() == len(exact) + len(children)

    unmatched = set(np.flatnonzero(alive))
    for parent, keeps_moments in exact:
        slot = find(after, before, parent, unmatched, keeps_moments)
        unmatched.remove(slot)
    for parent, scales, opacity in children:
        slot = next(
            s
            for s in unmatched
            if np.array_equal(after.gaussians["sh0"][s], before.gaussians["sh0"][parent])
        )
        unmatched.remove(slot)
        np.testing.assert_allclose(jnp.exp(after.gaussians["scales"][slot]), scales, rtol=1e-5)
        np.testing.assert_allclose(
            jax.nn.sigmoid(after.gaussians["opacities"][slot]), opacity, rtol=1e-4, atol=1e-6
        )
        check_child_place(before, after, parent, slot, normal[slot])
        for moments in (after.mu, after.nu):
            assert all(np.all(np.asarray(leaf[slot]) == 0) for leaf in moments.values())
    assert not unmatched


def find(after, before, parent, candidates, keeps_moments):
    for slot in candidates:
        same = all(
            np.array_equal(after.gaussians[n][slot], before.gaussians[n][parent])
            for n in before.gaussians
        )
        moments = [
            (np.asarray(getattr(after, p)[n][slot]), np.asarray(getattr(before, p)[n][parent]))
            for p in ("mu", "nu")
            for n in before.gaussians
        ]
        kept = all(np.array_equal(a, b) for a, b in moments)
        zero = all(np.all(a == 0) for a, _ in moments)
        if same and (kept if keeps_moments else zero):
            return slot
    raise AssertionError(f"no slot holds the row of parent {parent}")


def check_child_place(before, after, parent, slot, normal):
    w, x, y, z = np.asarray(before.gaussians["quats"][parent], np.float64) / np.linalg.norm(
        before.gaussians["quats"][parent]
    )
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + 2 * w * k + 2 * k @ k
    offset = rotation @ (np.exp(np.asarray(before.gaussians["scales"][parent])) * normal)
    expected = np.asarray(before.gaussians["means"][parent]) + offset
    np.testing.assert_allclose(after.gaussians["means"][slot], expected, rtol=1e-4, atol=1e-5)


def test_too_few_slots_keep_the_births_of_highest_gradient_and_record_the_rest(crowd, new_key):
    before, gradient = crowd
    before.gaussians["opacities"] = jnp.zeros(64)
    before = replace(before, alive=jnp.arange(64) < 59)
    high = np.asarray(before.alive) & (np.asarray(gradient) > 2e-4)
    after, counts = densify_default.refine(
        before, gradient, new_key(), SCENE_SCALE, False, Thresholds()
    )
    assert int(counts.cloned + counts.split) == 5
    assert int(counts.dropped) == high.sum() - 5
    assert bool(after.alive.all())
    best = np.argsort(-np.where(high, np.asarray(gradient), -1))[:5]
    born_from = {
        int(np.flatnonzero((np.asarray(before.gaussians["sh0"])[:59] == row).all((1, 2)))[0])
        for row in np.asarray(after.gaussians["sh0"])[59:]
    }
    assert born_from == set(best.tolist())


def test_no_gradient_above_threshold_leaves_every_bit(crowd, new_key):
    before, gradient = crowd
    before.gaussians["opacities"] = jnp.zeros(64)
    after, counts = densify_default.refine(
        before, gradient * NO_GRADIENT, new_key(), SCENE_SCALE, False, Thresholds()
    )
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert all(int(count) == 0 for count in jax.tree.leaves(counts))


def test_dead_rows_never_spawn(crowd, new_key):
    before, _ = crowd
    gradient = jnp.where(before.alive, 0.0, 1.0)
    _, counts = densify_default.refine(
        before, gradient, new_key(), SCENE_SCALE, False, Thresholds()
    )
    assert int(counts.cloned) == int(counts.split) == 0


def test_opacity_reset_clamps_down_only_and_forgets_only_opacity_moments(crowd):
    before, _ = crowd
    opacity = np.asarray(jax.nn.sigmoid(before.gaussians["opacities"]))
    after = densify_default.reset_opacity(before)
    alive = np.asarray(before.alive)
    found = np.asarray(jax.nn.sigmoid(after.gaussians["opacities"]))
    np.testing.assert_allclose(found[alive], np.minimum(opacity, 0.01)[alive], rtol=1e-5)
    np.testing.assert_array_equal(found[~alive], opacity[~alive])
    for part in ("mu", "nu"):
        assert np.all(np.asarray(getattr(after, part)["opacities"])[alive] == 0)
        for name in ("means", "scales", "quats", "sh0"):
            np.testing.assert_array_equal(getattr(after, part)[name], getattr(before, part)[name])


def test_screen_gradient_is_the_mean_norm_in_device_units_over_seeing_views(new_key):
    gradients = jax.random.normal(new_key(), (3, 7, 2)) * 1e-5
    visible = jax.random.uniform(new_key(), (3, 7)) > 0.4
    gradients = gradients * visible[:, :, None]
    statistics = screen_gradients.empty(7)
    for _ in range(2):
        statistics = screen_gradients.accumulate(statistics, gradients, 200, 100, 3)
        statistics = replace(statistics, views=statistics.views + visible.sum(0))
    for n in range(7):
        norms = [
            np.hypot(float(g[0]) * 100 * 3, float(g[1]) * 50 * 3)
            for g, v in zip(np.asarray(gradients[:, n]), np.asarray(visible[:, n]))
            if v
        ]
        expected = sum(norms) / max(len(norms), 1)
        np.testing.assert_allclose(statistics.mean()[n], expected, rtol=1e-5)


def test_quantiles_ignore_unseen_rows(new_key):
    values = jax.random.uniform(new_key(), (101,))
    mask = jnp.arange(101) < 51
    found = screen_gradients.masked_quantiles(values, mask)
    inside = np.sort(np.asarray(values)[:51])
    for name, q in (("q50", 0.5), ("q90", 0.9), ("q99", 0.99), ("q100", 1.0)):
        np.testing.assert_allclose(
            found[f"gradient_{name}"], np.quantile(inside, q, method="lower"), rtol=1e-6
        )
    nothing = screen_gradients.masked_quantiles(values, jnp.zeros(101, bool))
    assert all(float(value) == 0 for value in nothing.values())

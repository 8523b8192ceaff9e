"""Random Gaussians with random moments, for tests."""

import jax
import jax.numpy as jnp

from splats.gaussians.population import Population


def make_population(key, capacity, alive, opacity=None):
    names = {"means": (3,), "scales": (3,), "quats": (4,), "opacities": (), "sh0": (1, 3)}
    keys = iter(jax.random.split(key, 3 * len(names)))

    def leaves():
        return {n: jax.random.normal(next(keys), (capacity, *s)) for n, s in names.items()}

    gaussians = leaves()
    if opacity is not None:
        gaussians["opacities"] = jax.scipy.special.logit(jnp.asarray(opacity, jnp.float32))
    nu = jax.tree.map(jnp.square, leaves())
    return Population(gaussians, leaves(), nu, jnp.arange(capacity) < alive)

"""Faults in the fields of hand-object reconstruction and in their rendering."""

from tests.mutants.fault import Fault

DENSITY, BACKGROUND = "hand_object/fields/density.py", "hand_object/fields/background.py"
DENSITY_TESTS = "tests/hand_object/fields/density_test.py"
BACKGROUND_TESTS = "tests/hand_object/fields/background_test.py"
PLACEMENT_TESTS = "tests/hand_object/render/placement_test.py"
SAMPLING_TESTS = "tests/hand_object/render/sampling_test.py"

FAULTS = (
    Fault(
        "a skip at the output layer is accepted",
        "hand_object/config.py",
        "not 0 < self.skip < self.layers:\n            raise ConfigError(\n"
        '                f"sdf.skip',
        "not 0 < self.skip <= self.layers:\n            raise ConfigError(\n"
        '                f"sdf.skip',
        "tests/hand_object/config_test.py",
    ),
    Fault(
        "the slope of the density at the surface is halved",
        DENSITY,
        "positive = jnp.where(outside, sdf, 0.0)",
        "positive = jnp.maximum(sdf, 0.0)",
        DENSITY_TESTS,
    ),
    Fault(
        "the exponential of the inside overflows outside",
        DENSITY,
        "negative = jnp.where(outside, 0.0, sdf)",
        "negative = sdf",
        DENSITY_TESTS,
    ),
    Fault(
        "every density is clamped",
        DENSITY,
        'return jnp.minimum(sigma, config.most) if config.kind == "laplace_clamped" else sigma',
        "return jnp.minimum(sigma, config.most)",
        DENSITY_TESTS,
    ),
    Fault(
        "the background forgets where the camera is",
        BACKGROUND,
        "along = rho * t_mid + root",
        "along = root",
        BACKGROUND_TESTS,
    ),
    Fault(
        "a tangent ray has an infinite derivative",
        BACKGROUND,
        "jnp.sqrt(jnp.where(inner > 0, inner, 1.0))",
        "jnp.sqrt(jnp.maximum(inner, 0.0))",
        BACKGROUND_TESTS,
    ),
    Fault(
        "samples of a node stand for the gap to the next of any node",
        "hand_object/render/composition.py",
        '(additive if kind == "additive" else hold_sort)(nodes, config)',
        "hold_sort(nodes, config)",
        "tests/hand_object/render/composition_test.py",
    ),
    Fault(
        "the error bound counts its own interval as passed",
        "hand_object/render/error_bound.py",
        "before = jnp.cumsum(depth, axis=-1) - depth\n    return jnp.minimum",
        "before = jnp.cumsum(depth, axis=-1)\n    return jnp.minimum",
        SAMPLING_TESTS,
    ),
    Fault(
        "distances outside of the cache are those of its border",
        "hand_object/render/sdf_cache.py",
        "return value + beyond",
        "return value",
        SAMPLING_TESTS,
    ),
    Fault(
        "distances to vertices cancel far from the origin",
        "hand_object/render/skinning.py",
        "x, vertices = x - center, vertices - center",
        "x, vertices = x - 0 * center, vertices",
        PLACEMENT_TESTS,
    ),
    Fault(
        "normals stay in the canonical frame",
        "hand_object/render/nodes.py",
        '"ni,nij->nj", gradients, inverse',
        '"ni,nij->ni", gradients, inverse',
        PLACEMENT_TESTS,
    ),
    Fault(
        "the inside of a template is its outside",
        "hand_object/fields/mesh_distance.py",
        "jnp.where(inside, -distance, distance)",
        "distance",
        "tests/hand_object/fields/prefit_test.py",
    ),
)

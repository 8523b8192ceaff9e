"""Faults in projection, tiles, compositing and harmonics."""

from tests.mutants.fault import Fault

PROJECTION, HARMONICS = "splats/render/projection.py", "splats/render/harmonics.py"
TILES, COMPOSITE = "splats/render/tiles.py", "splats/render/composite.py"
LOOP = "splats/render/tile_loop.py"
PROJECTION_TESTS = "tests/splats/render/projection_test.py"
HARMONICS_TESTS = "tests/splats/render/harmonics_test.py"
TILE_TESTS = "tests/splats/render/tiles_test.py"
COMPOSITE_TESTS = "tests/splats/render/composite_test.py"

FAULTS = (
    Fault(
        "quaternions are not normalized",
        PROJECTION,
        "unit = unit_vectors(quats)",
        "unit = quats * 1.0",
        ("tests/splats/render/projection_test.py::test_values_match_gsplat_torch"),
    ),
    Fault(
        "the low-pass filter is left out along y",
        PROJECTION,
        "cov_yy = jnp.sum(row_y * row_y, axis=-1) + eps2d",
        "cov_yy = jnp.sum(row_y * row_y, axis=-1)",
        ("tests/splats/render/projection_test.py::test_values_match_gsplat_torch"),
    ),
    Fault(
        "the Jacobian is taken outside of the frustum",
        PROJECTION,
        "row_x = scale_x[:, None] * (factors[:, 0] - clamped_u[:, None] * factors[:, 2])",
        "row_x = scale_x[:, None] * (factors[:, 0] - u[:, None] * factors[:, 2])",
        f"{PROJECTION_TESTS}::test_factored_covariance_equals_the_textbook_product",
    ),
    Fault(
        "Gaussians behind the camera are drawn",
        PROJECTION,
        "visible &= in_range\n",
        "visible &= depths < far\n",
        (
            "tests/splats/render/projection_test.py"
            "::test_gaussians_outside_of_the_depth_range_are_culled"
        ),
    ),
    Fault(
        "the conic has the sign of the covariance",
        PROJECTION,
        "jnp.stack([cov_yy, -cov_xy, cov_xx], axis=-1)",
        "jnp.stack([cov_yy, cov_xy, cov_xx], axis=-1)",
        ("tests/splats/render/projection_test.py::test_values_match_gsplat_torch"),
    ),
    Fault(
        "a function of the second band has the other sign",
        "splats/gaussians/harmonic_basis.py",
        "-1.0925484305920792 * y * z,",
        "1.0925484305920792 * y * z,",
        (
            "tests/splats/render/harmonics_test.py"
            "::test_basis_is_the_real_part_of_scipys_harmonics_in_each_band "
            "tests/splats/render/harmonics_test.py"
            "::test_values_and_gradients_match_gsplat_torch"
        ),
    ),
    Fault(
        "bands above the active degree are drawn",
        HARMONICS,
        "(bands <= active_degree)",
        "(bands <= active_degree + 1)",
        (
            "tests/splats/render/harmonics_test.py"
            "::test_bands_above_a_traced_active_degree_contribute_nothing"
        ),
    ),
    Fault(
        "colors may be negative",
        HARMONICS,
        "return jnp.maximum(evaluate(directions, coefficients, active_degree) + OFFSET, 0.0)",
        "return evaluate(directions, coefficients, active_degree) + OFFSET",
        f"{HARMONICS_TESTS}::test_colors_are_never_negative",
    ),
    Fault(
        "Gaussians are drawn back to front",
        TILES,
        "keys = jnp.where(visible, keys, jnp.iinfo(jnp.int32).max)",
        "keys = jnp.where(visible, -keys, jnp.iinfo(jnp.int32).max)",
        TILE_TESTS,
    ),
    Fault(
        "the last tile of a row is missed",
        TILES,
        "jnp.minimum(last, tiles - 1)",
        "jnp.minimum(last, tiles - 2)",
        TILE_TESTS,
    ),
    Fault(
        "an overflow goes unsaid",
        TILES,
        "needed, needed > capacity)",
        "needed, needed > 2 * capacity)",
        f"{TILE_TESTS}::test_too_small_a_capacity_is_reported_and_the_reported_need_suffices",
    ),
    Fault(
        "alpha may reach one",
        LOOP,
        "alpha = jnp.minimum(unclamped, layout.MAX_ALPHA)",
        "alpha = unclamped",
        (
            "tests/splats/render/composite_test.py"
            "::test_opaque_stacks_stop_before_the_transmittance_threshold"
        ),
    ),
    Fault(
        "faint Gaussians are drawn too",
        LOOP,
        "(unclamped >= layout.MIN_ALPHA)",
        "(unclamped >= 0.0)",
        ("tests/splats/render/composite_test.py::test_image_and_gradients_match_float64_autograd"),
    ),
    Fault(
        "the mixed term of the exponent is halved",
        LOOP,
        "+ b * delta_x * delta_y",
        "+ 0.5 * b * delta_x * delta_y",
        ("tests/splats/render/composite_test.py::test_image_and_gradients_match_float64_autograd"),
    ),
    Fault(
        "the gradient of opacity has the other sign",
        COMPOSITE,
        "-m / jnp.where(opacity > 0.0, opacity, 1.0)",
        "m / jnp.where(opacity > 0.0, opacity, 1.0)",
        ("tests/splats/render/composite_test.py::test_image_and_gradients_match_float64_autograd"),
    ),
    Fault(
        "the background has no gradient",
        COMPOSITE,
        "background_grad = jnp.sum(left[:, None, :] * image_cotangent, axis=(0, 2))",
        "background_grad = jnp.zeros_like(background)",
        ("tests/splats/render/composite_test.py::test_image_and_gradients_match_float64_autograd"),
    ),
)

"""Faults in the photometric, depth and bilateral losses of splats."""

from tests.mutants.fault import Fault

PHOTOMETRIC, DEPTH = "splats/losses/photometric.py", "splats/losses/depth.py"
BILATERAL, POSES = "splats/losses/bilateral.py", "splats/losses/poses.py"
OVER_DEVICES = "splats/losses/over_devices.py"
VIEW_SUMS, GUARDS = "splats/losses/view_sums.py", "splats/guards.py"
PREPARATION = "splats/data/preparation.py"
PHOTOMETRIC_TESTS = "tests/splats/losses/photometric_test.py"
DEPTH_TESTS = "tests/splats/losses/depth_test.py"
BILATERAL_TESTS = "tests/splats/losses/bilateral_test.py"
POSES_TESTS = "tests/splats/losses/poses_test.py"

FAULTS = (
    Fault(
        "masked pixels count in SSIM",
        PHOTOMETRIC,
        "predicted = jnp.where(mask[:, :, None] > 0, predicted, target)",
        "predicted = predicted + 0.0",
        (
            "tests/splats/losses/photometric_test.py"
            "::test_masked_pixels_change_neither_loss_nor_metrics"
        ),
    ),
    Fault(
        "PSNR takes overexposed predictions as they are",
        PHOTOMETRIC,
        "difference = jnp.clip(predicted, 0.0, 1.0) - target",
        "difference = predicted - target",
        (
            "tests/splats/losses/photometric_test.py"
            "::test_psnr_equals_scikit_image_and_clips_the_prediction"
        ),
    ),
    Fault(
        "the structure term has the luminance's constant",
        PHOTOMETRIC,
        "(2 * (product - means_product) + C2)",
        "(2 * (product - means_product) + C1)",
        ("tests/splats/losses/photometric_test.py::test_metric_ssim_equals_scikit_image"),
    ),
    Fault(
        "points outside of the image count",
        DEPTH,
        "usable = present & inside",
        "usable = present",
        DEPTH_TESTS,
    ),
    Fault(
        "depths are compared instead of disparities",
        DEPTH,
        "jnp.abs(disparity - 1.0 / z)",
        "jnp.abs(rendered - z)",
        DEPTH_TESTS,
    ),
    Fault(
        "a pixel takes the lower cell's transform twice",
        BILATERAL,
        "(axes[axis][2] if bit else 1.0 - axes[axis][2])",
        "axes[axis][2]",
        BILATERAL_TESTS,
    ),
    Fault(
        "the offset of the affine color is forgotten",
        BILATERAL,
        "return linear + affine[..., 3]",
        "return linear",
        BILATERAL_TESTS,
    ),
    Fault(
        "a pose correction acts on the world's side",
        POSES,
        "return jnp.matmul(inverse, world_to_camera, precision=",
        "return jnp.matmul(world_to_camera, inverse, precision=",
        POSES_TESTS,
    ),
    Fault(
        "a translation is not undone in the rotated axes",
        POSES,
        'moved = -jnp.einsum("ji,j->i"',
        'moved = -jnp.einsum("ij,j->i"',
        POSES_TESTS,
    ),
    Fault(
        "losses of other devices are not added",
        OVER_DEVICES,
        "jax.tree.map(lambda leaf: jax.lax.psum(leaf, axes), sums.totals)",
        "jax.tree.map(lambda leaf: leaf, sums.totals)",
        (
            "tests/splats/losses/over_devices_test.py"
            "::test_updates_and_refinements_are_those_of_one_device"
        ),
    ),
    Fault(
        "a transparent photograph stays on black",
        VIEW_SUMS,
        "photograph = photograph + (1.0 - opaque)[:, :, None] * background[None, None, :]",
        "photograph = photograph + 0.0 * background[None, None, :]",
        "tests/splats/background_test.py::test_a_random_background_is_behind_the_photograph_too",
    ),
    Fault(
        "the color of transparent pixels leaks",
        PREPARATION,
        "return np.rint(color * weight).astype(np.uint8), alpha, None",
        "return color, alpha, None",
        "tests/splats/data/background_test.py",
    ),
    Fault(
        "two of five Gaussians decide that gradients are right",
        GUARDS,
        "sum(e <= allowed for e in errors) <= PROBED // 2:",
        "sum(e <= allowed for e in errors) < PROBED // 2:",
        "tests/splats/guards_test.py::test_most_of_five_gaussians_decide",
    ),
    Fault(
        "an opacity reset looks like views learned by heart",
        GUARDS,
        "if fall < HELD_OUT_FALL or rise <= 0:",
        "if fall < HELD_OUT_FALL:",
        "tests/splats/guards_test.py::test_scores_that_move_together_are_no_finding",
    ),
)

"""Faults in the readers of scenes: lenses, normalization, splits, COLMAP files."""

from tests.mutants.fault import Fault

DISTORTION, NORMALIZATION = "splats/data/distortion.py", "splats/data/normalization.py"
SPLITS = "splats/data/splits.py"
DISTORTION_TESTS = "tests/splats/data/distortion_test.py"
NORMALIZATION_TESTS = "tests/splats/data/normalization_test.py"
SPLIT_TESTS = "tests/splats/data/splits_test.py"

FAULTS = (
    Fault(
        "decentering coefficients are exchanged",
        DISTORTION,
        "2 * p1 * x * y + p2 * (square + 2 * x * x), 2 * p2 * x * y + p1 * (square + 2 * y * y)",
        "2 * p2 * x * y + p1 * (square + 2 * x * x), 2 * p1 * x * y + p2 * (square + 2 * y * y)",
        ("tests/splats/data/distortion_test.py::test_opencv_lens_equals_its_formula_written_out"),
    ),
    Fault(
        "the second radial coefficient has the first power",
        DISTORTION,
        "value = (value + coefficient) * variable",
        "value = value + coefficient * variable",
        ("tests/splats/data/distortion_test.py::test_opencv_lens_equals_its_formula_written_out"),
    ),
    Fault(
        "cameras are not moved with the world",
        NORMALIZATION,
        "centers = transform_points(similarity, camera_centers(world_to_camera))",
        "centers = camera_centers(world_to_camera)",
        NORMALIZATION_TESTS,
    ),
    Fault(
        "up is the cameras' down",
        NORMALIZATION,
        "up = -rotation[:, 1].mean(axis=0)",
        "up = rotation[:, 1].mean(axis=0)",
        NORMALIZATION_TESTS,
    ),
    Fault(
        "the scene scale is the mean distance",
        NORMALIZATION,
        "largest = np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()",
        "largest = np.linalg.norm(centers - centers.mean(axis=0), axis=1).mean()",
        NORMALIZATION_TESTS,
    ),
    Fault(
        "test views train as well",
        SPLITS,
        "for index, name in enumerate(names) if index % choice.every)",
        "for index, name in enumerate(names))",
        SPLIT_TESTS,
    ),
    Fault(
        "overlapping lists are accepted",
        SPLITS,
        "both = sorted(set(train) & set(test))",
        "both = []",
        SPLIT_TESTS,
    ),
    Fault(
        "camera centers are the translations",
        NORMALIZATION,
        'return -np.einsum("vji,vj->vi", rotation, translation)',
        'return np.einsum("vji,vj->vi", rotation, translation)',
        NORMALIZATION_TESTS,
    ),
    Fault(
        "a scene of another world is taken",
        "splats/data/scene_facts.py",
        "if difference > TOLERANCE *",
        "if difference > 1e9 *",
        ("tests/splats/without_photographs_test.py::test_photographs_of_another_world_are_refused"),
    ),
    Fault(
        "views that were trained on are held out",
        "splats/data/scene_facts.py",
        "    if leaked:",
        "    if not leaked and False:",
        ("tests/splats/task_test.py::test_a_checkpoint_that_trained_on_held_out_views_is_refused"),
    ),
    Fault(
        "saved cameras lose digits",
        "splats/data/scene_facts.py",
        "float(str(value))",
        "round(float(value), 4)",
        ("tests/splats/without_photographs_test.py::test_facts_come_back_from_json_bit_by_bit"),
    ),
    Fault(
        "room that was too small once is forgotten by a checkpoint",
        "splats/gaussians/sizes.py",
        "return Sizes(**metadata)",
        "return replace(Sizes(**metadata), too_few_pairs=0)",
        "tests/splats/gaussians/sizes_test.py"
        "::test_room_that_was_too_small_once_is_never_returned_to",
    ),
    Fault(
        "the best held-out views come first",
        "splats/held_out_table.py",
        "return sorted(range(len(psnr)), key=lambda at: (np.isfinite(psnr[at]), psnr[at], at))",
        "return sorted(range(len(psnr)), key=lambda at: (np.isfinite(psnr[at]), -psnr[at], at))",
        "tests/splats/held_out_table_test.py",
    ),
    Fault(
        "the first of several models is taken",
        "splats/data/colmap.py",
        "return max(models, key=lambda folder: (count_images(folder), -int(folder.name)))",
        "return models[0]",
        "tests/splats/data/doubts_test.py"
        "::test_of_several_models_the_largest_is_taken_and_the_others_are_named",
    ),
    Fault(
        "a camera that only turns has parallax",
        "splats/data/doubts.py",
        "or ROUNDING * float(np.linalg.norm(middle))",
        "or 0.0",
        "tests/splats/data/doubts_test.py"
        "::test_a_turning_camera_stands_at_one_place_although_its_centers_are_rounded",
    ),
)

"""Faults in hands, sequences and metrics of hand-object reconstruction."""

from tests.mutants.fault import Fault

SKINNING, MODEL = "hand_object/hands/skinning.py", "hand_object/hands/model.py"
SKINNING_TESTS = "tests/hand_object/hands/skinning_test.py"
SIDES = "tests/hand_object/hands/sides_test.py"
BUILD_TESTS = "tests/hand_object/data/hold_build_test.py"
METRICS = "tests/hand_object/metrics/metrics_test.py"

FAULTS = (
    Fault(
        "joints do not move with the shape",
        SKINNING,
        "_shaped(model.joints, model.joint_dirs, shape)",
        "_shaped(model.joints, 0 * model.joint_dirs, shape)",
        SKINNING_TESTS,
    ),
    Fault(
        "a joint turns about the origin",
        SKINNING,
        "offset = joints - jnp.einsum(",
        "offset = 0 * jnp.einsum(",
        SKINNING_TESTS,
    ),
    Fault(
        "a mirrored hand keeps its winding",
        MODEL,
        "np.asarray(model.faces)[:, ::-1]",
        "np.asarray(model.faces)",
        SIDES,
    ),
    Fault(
        "the sign of left shapes stays wrong",
        "hand_object/hands/mano.py",
        "shape_dirs * np.array([-1.0, 1, 1])",
        "shape_dirs * np.array([1.0, 1, 1])",
        "tests/hand_object/hands/mano_test.py",
    ),
    Fault(
        "any class of a pickle is found",
        "hand_object/restricted_pickle.py",
        'raise pickle.UnpicklingError(f"it asks for {module}.{name}")',
        "return super().find_class(module, name)",
        "tests/hand_object/hands/mano_test.py",
    ),
    Fault(
        "a mirrored camera is taken as it is",
        "hand_object/data/hold_build.py",
        "projection = -projection",
        "projection = projection * 1",
        BUILD_TESTS,
    ),
    Fault(
        "cameras stay when the world is moved",
        "hand_object/data/hold_build.py",
        "world_to_camera[:, :3, 3] += world_to_camera[:, :3, :3] @ center",
        "world_to_camera[:, :3, 3] += 0",
        BUILD_TESTS,
    ),
    Fault(
        "a smaller picture begins at zero",
        "hand_object/data/sequence.py",
        "+= 0.5 * scale - 0.5",
        "+= 0",
        BUILD_TESTS,
    ),
    Fault(
        "the F-score is the mean of both shares",
        "hand_object/metrics/surfaces.py",
        "200 * precision * recall / total",
        "50 * total",
        METRICS,
    ),
    Fault(
        "registration may mirror",
        "hand_object/metrics/surfaces.py",
        "np.sign(np.linalg.det(u @ vt))",
        "1",
        METRICS,
    ),
)

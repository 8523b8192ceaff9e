"""Faults in how sequences of other people are read and checked."""

from tests.mutants.fault import Fault

AWKWARD, RECORDING_TESTS = (
    "tests/hand_object/data/awkward_test.py",
    "tests/hand_object/data/recording_test.py",
)
FILES, HOLD, AXES = (
    "hand_object/data/picture_files.py",
    "hand_object/data/hold_build.py",
    "hand_object/data/axes.py",
)
CHECKS, RECORDING = "hand_object/data/checks.py", "hand_object/data/recording.py"
REGISTRATION = "hand_object/hands/registration.py"
REGISTRATION_TESTS = "tests/hand_object/hands/registration_test.py"

FAULTS = (
    Fault(
        "frames of 16 bits become white",
        FILES,
        "return (levels.clip(0, 65535) // 257).astype(np.uint8)",
        "return levels.clip(0, 255).astype(np.uint8)",
        AWKWARD,
    ),
    Fault(
        "colored masks are read by their red",
        FILES,
        "if np.ptp(color, axis=2).max() > _COLORED:",
        "if False:",
        AWKWARD,
    ),
    Fault(
        "a hand of zeros is taken for a hand",
        HOLD,
        "valid = _finite(both) & both.any(axis=1)",
        "valid = _finite(both)",
        AWKWARD,
    ),
    Fault(
        "cameras of OpenGL are not turned",
        AXES,
        'return turned, Finding("camera axes", "green", sentence)',
        'return sequence, Finding("camera axes", "green", sentence)',
        AWKWARD,
    ),
    Fault(
        "axes are taken without a look at the masks",
        AXES,
        "if _ahead(turned, points) >= 0.5 and share >= LEAST_OVERLAP:",
        "if _ahead(turned, points) >= 0.5:",
        AWKWARD,
    ),
    Fault(
        "an object that is hardly ever found is no red finding",
        CHECKS,
        'elif name == "object" and valid.mean() < REGISTERED:',
        'elif name == "object" and valid.mean() < 0:',
        AWKWARD,
    ),
    Fault(
        "points of an object are left in the world",
        RECORDING,
        "(world - pose[frame, :3, 3]) @ pose[frame, :3, :3]",
        "(world - pose[frame, :3, 3])",
        RECORDING_TESTS,
    ),
    Fault(
        "gray levels of objects are mixed up",
        RECORDING,
        "name, least = names[int(np.argmin(away))], float(np.min(away))",
        "name, least = names[int(np.argmax(away))], float(np.min(away))",
        RECORDING_TESTS,
    ),
    Fault(
        "shape numbers are fitted as if poses did not give way",
        REGISTRATION,
        "both = both - _product(slopes, _least_squares(slopes, both))",
        "both = both + 0 * slopes[:, :1]",
        REGISTRATION_TESTS,
    ),
    Fault(
        "what a lost node's mask shows counts in the overlap",
        "hand_object/evaluation.py",
        "found, own = (seen == number) & known, (mask == number) & known",
        "found, own = (seen == number) & known, mask == number",
        "tests/hand_object/evaluation_test.py",
    ),
)

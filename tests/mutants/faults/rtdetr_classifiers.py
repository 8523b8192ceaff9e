"""Faults in how the body of a classifier becomes a backbone."""

from tests.mutants.fault import Fault

NAMES, TESTS = "rtdetr/weights/classifiers.py", "tests/rtdetr/weights/classifiers_test.py"

FAULTS = (
    Fault(
        "the last norm of the stem goes to another layer",
        NAMES,
        '"bn1": "2.normalization"',
        '"bn1": "1.normalization"',
        TESTS,
    ),
    Fault(
        "the first stage's projection is looked for behind an average",
        NAMES,
        "if stage > 0 else",
        "if stage >= 0 else",
        TESTS,
    ),
    Fault(
        "a stem of one convolution is not told apart",
        NAMES,
        'if "conv1.0.weight" not in tensors:',
        "if not tensors:",
        TESTS,
    ),
    Fault(
        "unknown arrays of the body are dropped",
        NAMES,
        'else f"model.backbone.{name}"',
        "else name",
        TESTS,
    ),
    Fault(
        "pixels of a classifier's backbone are not standardized",
        "rtdetr/weights/foreign.py",
        'input_norm="imagenet")\n',
        'input_norm="unit")\n',
        TESTS,
    ),
)

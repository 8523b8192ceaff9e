"""Faults in how a network is folded for use."""

from tests.mutants.fault import Fault

FOLDING, TESTS = "rtdetr/model/folding.py", "tests/rtdetr/model/folding_test.py"

FAULTS = (
    Fault(
        "the mean of a folded norm is forgotten",
        FOLDING,
        ' - np.asarray(norm["mean"], np.float64) * factor',
        "",
        TESTS,
    ),
    Fault(
        "a 1 x 1 kernel lies in the corner of a 3 x 3 one",
        FOLDING,
        "kernel[middle, middle] +=",
        "kernel[0, 0] +=",
        TESTS,
    ),
    Fault(
        "one of two biases is lost",
        FOLDING,
        '"bias": wide["bias"] + narrow["bias"]',
        '"bias": wide["bias"]',
        TESTS,
    ),
    Fault(
        "kernels are scaled by their inputs",
        FOLDING,
        "factor.reshape(1, 1, 1, -1)",
        "factor.mean()",
        TESTS,
    ),
    Fault(
        "a folded network trains",
        "rtdetr/model/layers.py",
        "    if train:\n        raise ValueError",
        "    if False:\n        raise ValueError",
        TESTS,
    ),
)

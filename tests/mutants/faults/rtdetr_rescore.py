"""Faults in how an exported graph is scored."""

from tests.mutants.fault import Fault

RESCORE, TESTS = "rtdetr/graphs/rescore.py", "tests/rtdetr/rescore_test.py"

FAULTS = (
    Fault(
        "a graph with another AP passes",
        RESCORE,
        "if not abs(ours - theirs) <= LARGEST_AP:",
        "if not abs(ours - ours) <= LARGEST_AP:",
        TESTS,
    ),
    Fault(
        "boxes that are no numbers match",
        RESCORE,
        " & np.isfinite(found.boxes.values).all(axis=-1)",
        "",
        TESTS,
    ),
    Fault(
        "the images of a batch that is not full are left out",
        RESCORE,
        "range(0, len(dataset), batch)",
        "range(0, len(dataset) // batch * batch, batch)",
        TESTS,
    ),
    Fault(
        "all images of a batch get the answer of the first",
        RESCORE,
        "(part[place] for part in parts)",
        "(part[0] for part in parts)",
        TESTS,
    ),
)

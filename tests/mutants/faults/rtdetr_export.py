"""Faults in the exported graph of a detector."""

from tests.mutants.fault import Fault

GRAPH, CHECK = "rtdetr/graphs/detection.py", "rtdetr/graphs/check.py"
TESTS = "tests/rtdetr/export_test.py"
WAY = f"{TESTS}::test_the_graph_is_the_way_of_evaluation"
LETTERBOX = f"{TESTS}::test_a_letterbox_is_as_large_as_the_resizing_makes_it"
VERIFIED = f"{TESTS}::test_an_answer_is_verified_but_the_order_of_equal_scores_is_free"
REFUSED = f"{TESTS}::test_arguments_that_cannot_be_are_refused"

FAULTS = (
    Fault(
        "boxes of a letterbox are scaled as those of a squash",
        GRAPH,
        "covered = limits / shares",
        "covered = limits",
        WAY,
    ),
    Fault(
        "the padding of a letterbox is looked at",
        GRAPH,
        "content_of(sizes, canvas) if padded else None",
        "jnp.full_like(sizes, 4096) if padded else None",
        WAY,
    ),
    Fault(
        "boxes are clipped to an image that lies on its side",
        GRAPH,
        "[limits[:, ::-1], limits[:, ::-1]]",
        "[limits, limits]",
        WAY,
    ),
    Fault(
        "sides of a letterbox are rounded down",
        GRAPH,
        "return whole + (",
        "return whole + 0 * (",
        LETTERBOX,
    ),
    Fault(
        "scores that are no numbers pass the verification",
        CHECK,
        "if not (scores <= LARGEST and share >= SHARE):",
        "if scores > LARGEST or share < SHARE:",
        VERIFIED,
    ),
    Fault(
        "classes are not verified",
        CHECK,
        "equal = near & (labels[:, None] == l[None]) &",
        "equal = near &",
        VERIFIED,
    ),
    Fault(
        "boxes are not verified",
        CHECK,
        "near & (labels",
        "(near | True) & (labels",
        VERIFIED,
    ),
    Fault(
        "arguments of another format are taken and ignored",
        "rtdetr/export.py",
        "if args.format not in formats:",
        "if False:",
        REFUSED,
    ),
)

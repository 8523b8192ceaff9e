"""Faults in checkpoints: comparison, retention, hand-off, decisions of several hosts."""

from tests.mutants.fault import Fault

DIFF, RETENTION = "training/checkpoint/diff.py", "training/checkpoint/retention.py"
DIFF_TESTS = "tests/training/checkpoint/diff_test.py"
RETENTION_TESTS = "tests/training/checkpoint/retention_test.py"
INIT_TESTS = "tests/training/checkpoint/init_from_test.py"
STORE_TESTS = "tests/training/checkpoint/store_test.py"

FAULTS = (
    Fault(
        "transposed shapes are accepted",
        DIFF,
        "elif ours.shape != theirs.shape:",
        "elif sorted(ours.shape) != sorted(theirs.shape):",
        "tests/training/checkpoint/resume_test.py::test_transposed_array_does_not_fit",
    ),
    Fault(
        "other dtypes are accepted",
        DIFF,
        "elif ours.dtype != theirs.dtype",
        "elif False and ours.dtype != theirs.dtype",
        DIFF_TESTS,
    ),
    Fault(
        "arrays that only the checkpoint has are not seen",
        DIFF,
        "for path in [*model, *(path for path in saved_leaves if path not in model)]:",
        "for path in [*model]:",
        DIFF_TESTS,
    ),
    Fault(
        "a pattern needs to match the beginning of a path only",
        DIFF,
        "if re.fullmatch(pattern, path)}",
        "if re.match(pattern, path)}",
        f"{DIFF_TESTS} {INIT_TESTS}",
    ),
    Fault(
        "a pattern that matches nothing is accepted",
        DIFF,
        "if not hits:",
        "if hits is None:",
        f"{DIFF_TESTS} {INIT_TESTS}",
    ),
    Fault(
        "the best checkpoint is the worst",
        RETENTION,
        '1.0 if self.config.best_mode == "max" else -1.0',
        '-1.0 if self.config.best_mode == "max" else 1.0',
        RETENTION_TESTS,
    ),
    Fault(
        "of equals the earlier is best",
        RETENTION,
        "key=lambda step: (scores[step], step)",
        "key=lambda step: (scores[step], -step)",
        RETENTION_TESTS,
    ),
    Fault(
        "the newest checkpoint may be removed",
        RETENTION,
        "max(1, self.config.keep_latest)",
        "self.config.keep_latest",
        RETENTION_TESTS,
    ),
    Fault(
        "the sparse history needs exact multiples",
        RETENTION,
        "later // every > earlier // every",
        "later % every == 0",
        RETENTION_TESTS,
    ),
)

"""Faults in what is written to a work folder, and in who may write."""

from tests.mutants.fault import Fault

STORAGE, LINES = "training/storage.py", "training/line_file.py"
STORAGE_TESTS = "tests/training/storage_test.py"

FAULTS = (
    Fault(
        "JSON files are written in place",
        STORAGE,
        'temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")',
        "temporary = path",
        STORAGE_TESTS,
    ),
    Fault(
        "a write that fails leaves its remains",
        STORAGE,
        "        temporary.unlink(missing_ok=True)\n        raise",
        "        raise",
        STORAGE_TESTS,
    ),
    Fault(
        "a torn line swallows the next one",
        LINES,
        "        if torn:\n",
        "        if torn is None:\n",
        "tests/training/line_file_test.py::test_a_torn_line_of_a_disk_is_ended",
    ),
    Fault(
        "two runs share a work folder",
        "training/folder_lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "tests/training/folder_lock_test.py::test_a_second_run_is_refused_and_told_who_is_at_work",
    ),
    Fault(
        "an incomplete checkpoint counts",
        "training/checkpoint/folder.py",
        "return all((path / name).exists() for name in COMPLETE)",
        "return any((path / name).exists() for name in COMPLETE)",
        "tests/training/checkpoint/store_test.py"
        "::test_a_checkpoint_without_one_of_its_parts_does_not_count",
    ),
)

"""Faults in weights of RT-DETR that come in, go out or start another run."""

from tests.mutants.fault import Fault

EXCHANGE, REMAP = (f"rtdetr/weights/{name}.py" for name in ("exchange", "remap"))
TORCH = "training/torch_file.py"
TESTS = "tests/rtdetr/weights"

FAULTS = (
    Fault(
        "a class gets the head of another one with its number",
        REMAP,
        "return [(number, there[name]) for",
        "return [(number, number) for",
        f"{TESTS}/remap_test.py",
    ),
    Fault(
        "the padding of the denoising table is forgotten",
        REMAP,
        "here, there = [*here, start.shape[0] - 1], [*there, saved.shape[0] - 1]",
        "here, there = [*here, 0], [*there, 0]",
        f"{TESTS}/remap_test.py",
    ),
    Fault(
        "a fixed norm's scale is not found by a run that trains it",
        REMAP,
        "return moved if moved in saved else path",
        "return path",
        f"{TESTS}/remap_test.py",
    ),
    Fault(
        "arrays that are left over are passed over",
        EXCHANGE,
        "if missing or extra:",
        "if missing:",
        f"{TESTS}/import_test.py::test_an_array_that_does_not_fit_is_named",
    ),
    Fault(
        "a file of PyTorch may name any function",
        TORCH,
        'raise pickle.UnpicklingError(f"it asks for {module}.{name}, which may run anything")',
        "return super().find_class(module, name)",
        f"{TESTS}/import_test.py::test_a_file_that_would_run_something_is_refused_and_does_not",
    ),
    Fault(
        "the last weights are taken instead of their average",
        TORCH,
        '(("ema", "module"), ("model",),',
        '(("model",), ("ema", "module"),',
        f"{TESTS}/import_test.py::test_a_file_of_the_authors_and_its_average_first",
    ),
)

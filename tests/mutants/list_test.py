"""The list of planted faults fits the sources of today, so that `make mutants` can run."""

from __future__ import annotations

import pytest

from tests.mutants.fault import Fault, ListError
from tests.mutants.faults import FAULTS
from tests.mutants.run import ROOT


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_text_is_there_once_and_its_tests_exist(fault):
    fault.planted(ROOT)
    fault.check_tests(ROOT)


def test_names_are_unique_and_few_faults_are_excused():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 80
    assert sum(bool(fault.survives) for fault in FAULTS) <= 0.05 * len(FAULTS)


@pytest.mark.parametrize(
    ("text", "replacement"), [("absent", "x"), ("a", "b"), ("whole", "whole"), ("whole", "(")]
)
def test_fault_that_does_not_fit_is_refused(tmp_path, text, replacement):
    (tmp_path / "source.py").write_text("whole = 1\na = a\n")
    with pytest.raises(ListError, match="tried"):
        Fault("tried", "source.py", text, replacement, "source.py").planted(tmp_path)


def test_test_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "some_test.py").write_text("def test_one():\n    pass\n")
    Fault("tried", "", "", "", "some_test.py::test_one").check_tests(tmp_path)
    for missing in ("some_test.py::test_two", "other_test.py", ""):
        with pytest.raises(ListError, match="tried"):
            Fault("tried", "", "", "", missing).check_tests(tmp_path)

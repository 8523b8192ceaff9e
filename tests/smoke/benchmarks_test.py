"""The benchmark scripts find the packages that they measure, however they are started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

# As `python benchmarks/NAME.py` starts: its folder comes first, and it has files of our names.
START = """
import importlib, runpy, sys
script, folder, package = sys.argv[1:]
sys.path[0] = folder
runpy.run_path(script, run_name="script")
print(importlib.import_module(package).__file__)
"""


@pytest.mark.parametrize(
    ("script", "package"),
    [
        ("jepa3d", "jepa3d"),
        ("splats", "splats"),
        ("loop", "training"),
        ("loader", "training"),
        ("rtdetr_dials", "rtdetr"),
    ],
)
def test_a_script_imports_the_package_and_not_itself(script, package, tmp_path):
    folder = REPOSITORY / "benchmarks"
    done = subprocess.run(
        [sys.executable, "-c", START, str(folder / f"{script}.py"), str(folder), package],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(REPOSITORY / package / "__init__.py")

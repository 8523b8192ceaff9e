"""The system of docs/architecture.md is built from the page's own text, trained and evaluated."""

from __future__ import annotations

import json
import re
import sys

import pytest

from launch.cli import main
from tests.conftest import REPOSITORY
from training import registry

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/]+\.py)`\n\n```python\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def linear(tmp_path, monkeypatch):
    """The folder that holds the system, which is installed as the page says."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "SYSTEMS", (*registry.SYSTEMS, "linear"))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "linear"]:
        del sys.modules[name]


def test_the_page_has_every_file_that_it_says_is_needed():
    assert {"linear/__init__.py", "linear/config.py", "linear/task.py"} < FILES.keys()


def test_the_system_of_the_page_trains_resumes_evaluates_and_can_overfit(linear, capsys):
    recipe, workdir = str(linear / "configs/linear/smoke.py"), str(linear / "run")
    assert main(["train", "--config", recipe, "--workdir", workdir]) == 0
    first, last = (
        json.loads((linear / "run" / "eval" / f"{step}.json").read_text())["error"]
        for step in (0, 60)
    )
    # The answer is exact but for noise of 0.1 in each of two numbers.
    assert last < 0.1 * first and last < 0.1
    assert main(["train", "--config", recipe, "--workdir", workdir]) == 0
    assert main(["evaluate", "--workdir", workdir, "--step", "best"]) == 0
    assert f"{last:.6g}" in capsys.readouterr().out
    assert main(["overfit", "--config", recipe, "--updates", "100"]) == 0
    assert "pass  overfit" in capsys.readouterr().out


def test_commands_that_the_system_has_not_say_who_has_them(linear, capsys):
    recipe, workdir = str(linear / "configs/linear/smoke.py:2"), str(linear / "short")
    assert main(["train", "--config", recipe, "--workdir", workdir]) == 0
    assert main(["export", "--workdir", workdir, "--output", str(linear / "x")]) == 2
    said = capsys.readouterr().err
    assert "linear" in said and "jepa3d" in said and "splats" in said


def test_its_config_is_strict_like_every_other(linear, capsys):
    recipe, workdir = str(linear / "configs/linear/smoke.py"), str(linear / "wrong")
    key = "--config.data.nois=0.2"
    assert main(["train", "--config", recipe, "--workdir", workdir, key]) == 2
    assert "did you mean noise" in capsys.readouterr().err
    assert not (linear / "wrong").exists()


def test_evaluate_takes_other_data_and_leaves_the_run_its_own(linear, capsys):
    recipe, workdir = str(linear / "configs/linear/smoke.py:30"), str(linear / "noisy")
    assert main(["train", "--config", recipe, "--workdir", workdir]) == 0
    own = (linear / "noisy/eval/30.json").read_text()
    other = ["evaluate", "--workdir", workdir, "--config.data.noise=3.0"]
    assert main(other) == 2
    assert "give --output DIR" in capsys.readouterr().err
    assert main([*other, "--output", str(linear / "elsewhere")]) == 0
    error = json.loads((linear / "elsewhere/eval/30.json").read_text())["error"]
    # Two numbers of variance 9 each; 32 examples leave a relative deviation of a fifth.
    assert 18 * 0.25 < error < 18 * 2
    assert (linear / "noisy/eval/30.json").read_text() == own

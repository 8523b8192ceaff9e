"""Commands that use a model: light to parse, and a sentence for systems that they do not serve."""

from __future__ import annotations

import subprocess
import sys

import pytest

from launch import arguments, cli, export, import_weights, predict, view
from tests.conftest import REPOSITORY
from training.errors import ConfigError


@pytest.mark.parametrize(
    ("command", "modules", "role"),
    [
        ("export", export.MODULES, "export"),
        ("predict", predict.MODULES, "predict"),
        ("import", import_weights.MODULES, "import_weights"),
        ("view", view.MODULES, "view"),
    ],
)
def test_every_listed_system_has_the_function_and_others_get_a_sentence(command, modules, role):
    for system in modules:
        assert callable(getattr(arguments.system_module(system, modules, command), role))
    with pytest.raises(ConfigError, match=f"podvision {command} has nothing for runs of rtdetr"):
        arguments.system_module("rtdetr", modules, command)


def test_arguments_are_parsed_without_loading_jax():
    code = (
        "import sys; from launch.cli import build_parser\n"
        "for name in ('export', 'predict', 'import', 'view'): build_parser(name).format_help()\n"
        "sys.exit('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["export", "predict"])
def test_a_folder_without_a_run_is_named(command, tmp_path, capsys):
    where = ["--workdir", str(tmp_path), "--output", str(tmp_path / "a.ply")]
    more = ["--input", "orbit"] if command == "predict" else []
    assert cli.main([command, *where, *more]) == 2
    assert "is not the work folder of a run" in capsys.readouterr().err

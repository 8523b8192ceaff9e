"""Commands that a system brings are found by the name of its module, without any table."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from launch import cli
from tests.conftest import REPOSITORY
from training import registry
from training.errors import ConfigError, InputError

NAMED = {"prepare": "prepare", "import": "import_weights"}
OF_A_RUN = ("export", "predict", "view")

COMMAND = '''
"""What {command} does in the new system."""


def add_arguments(parser):
    parser.add_argument("--{command}-only", type=int, required=True)


def check_arguments(args):
    print("checked", args.{command}_only)


def run(args):
    print("ran", args.{command}_only)
    return 0


view = import_weights = run
'''


@pytest.fixture
def new_system(tmp_path, monkeypatch):
    """A package `newcomer` with modules for some commands; one line of the registry changes."""
    package = tmp_path / "packages" / "newcomer"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for command in ("prepare", "view"):
        (package / f"{command}.py").write_text(COMMAND.format(command=command))
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(registry, "SYSTEMS", (*registry.SYSTEMS, "newcomer"))
    yield "newcomer"
    for name in [name for name in sys.modules if name.split(".")[0] == "newcomer"]:
        del sys.modules[name]


def run_of(system, folder):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"config": {"system": system}}))
    return folder


def test_a_new_system_has_its_commands_by_the_line_in_the_registry_alone(
    new_system, tmp_path, capsys
):
    assert cli.main(["prepare", new_system, "--prepare-only", "3"]) == 0
    assert capsys.readouterr().out == "ran 3\n"
    workdir = str(run_of(new_system, tmp_path / "run"))
    assert cli.main(["view", "--workdir", workdir, "--view-only", "4"]) == 0
    assert capsys.readouterr().out == "checked 4\nran 4\n"


def test_arguments_are_those_of_the_system_only(new_system, tmp_path, capsys):
    workdir = str(run_of(new_system, tmp_path / "run"))
    with pytest.raises(SystemExit) as caught:
        cli.main(["view", "--workdir", workdir, "--view-only", "4", "--port", "80"])
    assert caught.value.code == 2
    assert "--port" in capsys.readouterr().err  # an argument of splats


@pytest.mark.parametrize("command", NAMED)
def test_a_system_without_the_command_is_refused_with_those_that_have_it(command, capsys):
    serving = ", ".join(registry.systems_with(NAMED[command]))
    assert cli.main([command, "nosuch", "--input", "x"]) == 2
    expected = f"podvision {command}: this command has nothing for 'nosuch'; it serves {serving}\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("command", ["export", "predict", "import"])
def test_a_command_that_a_new_system_lacks_is_refused(new_system, command, tmp_path, capsys):
    workdir = str(run_of(new_system, tmp_path / "run"))
    words = [new_system] if command == "import" else ["--workdir", workdir]
    assert cli.main([command, *words]) == 2
    assert "has nothing for 'newcomer'; it serves" in capsys.readouterr().err


@pytest.mark.parametrize("command", OF_A_RUN)
def test_help_without_a_work_folder_shows_the_arguments_of_every_system(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    page = capsys.readouterr().out
    assert caught.value.code == 0
    for system in registry.systems_with(command):
        assert f"runs of {system}: " in page
    assert page.count("--output") >= (0 if command == "view" else 2)


def test_every_module_of_a_command_has_what_the_command_calls():
    for command in OF_A_RUN:
        for system in registry.systems_with(command):
            module = registry.system_module(system, command)
            assert all(
                callable(getattr(module, name))
                for name in ("add_arguments", "check_arguments", command)
            )
    for role, function in (("prepare", "run"), ("import_weights", "import_weights")):
        for system in registry.systems_with(role):
            module = registry.system_module(system, role)
            assert callable(module.add_arguments) and callable(getattr(module, function))


def test_arguments_are_parsed_without_loading_jax():
    code = (
        "import sys; from launch.cli import COMMANDS, build_parser\n"
        "for name in COMMANDS: build_parser(name).format_help()\n"
        "sys.exit('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize("command", OF_A_RUN)
def test_a_folder_without_a_run_is_named(command, tmp_path, capsys):
    assert cli.main([command, "--workdir", str(tmp_path), "--anything"]) == 2
    assert "is not the work folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": {}}', '{"config": 3}'])
def test_a_damaged_config_of_a_run_is_one_sentence(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        InputError, match=r"is not the work folder of a run|config of a run; restore"
    ):
        cli.build_parser("export", ["--workdir", str(tmp_path)])


def test_a_work_folder_without_its_value_is_left_to_the_parser(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["export", "--workdir"])
    assert caught.value.code == 2
    assert "--workdir: expected one argument" in capsys.readouterr().err


def test_launch_names_no_system():
    named = [
        f"{path.name}: {line.strip()}"
        for path in sorted((REPOSITORY / "launch").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if any(system in line for system in registry.SYSTEMS)
    ]
    assert named == []


def test_an_unknown_system_is_an_error_of_the_config():
    with pytest.raises(ConfigError, match="has nothing for 'nosuch'; it serves no system"):
        registry.system_module("nosuch", "no_such_command")

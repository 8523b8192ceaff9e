"""The command line: light help, did-you-mean, exit codes and one sentence per error."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from launch import cli
from tests.conftest import REPOSITORY
from training.errors import CheckpointError, ConfigError, DataFault, GuardStop, InputError

HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "numpy", "tensorflow_datasets", "wandb")


@pytest.fixture
def command(monkeypatch):
    """Installs a command `train` whose `run` is given; returns what to call it with."""

    def install(run):
        module = types.ModuleType("fake_train", "Trains.\n\nThe long help.")
        module.add_arguments = lambda parser: parser.add_argument("--config", default="x.py")
        module.run = run
        monkeypatch.setitem(sys.modules, "fake_train", module)
        monkeypatch.setitem(cli.COMMANDS, "train", ("fake_train", "train"))
        return lambda *argv: cli.main(["train", *argv])

    return install


def test_help_in_a_fresh_interpreter_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['podvision', '--help']; from launch.cli import main\n"
        "code = main(); print([m for m in sys.modules if m in " + repr(HEAVY) + "]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *page, imported = done.stdout.strip().splitlines()
    assert imported == "[]"
    assert page[0] == "usage: podvision <command> [arguments]"
    for name, (_, summary) in cli.COMMANDS.items():
        assert any(line.split()[:1] == [name] and summary in line for line in page)


@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), (["-h"], 0), (["help"], 0), ([], 2)])
def test_the_help_page_is_a_success_only_when_asked_for(argv, code, capsys):
    assert cli.main(argv) == code
    assert "podvision <command>" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("trian", "did you mean train?"), ("evalute", "did you mean evaluate?"), ("x", "--help")],
)
def test_an_unknown_command_suggests_the_nearest(wrong, hint, capsys):
    assert cli.main([wrong]) == 2
    captured = capsys.readouterr()
    assert f"unknown command '{wrong}'" in captured.err and hint in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("config.x is wrong; fix it"), 2),
        (InputError("the file is empty"), 2),
        (CheckpointError("no checkpoint here"), 2),
        (GuardStop("loss-spike", "the loss was 9 at step 3"), 3),
        (DataFault("9 of 10 examples could not be read"), 4),
    ],
)
def test_an_error_for_the_user_is_one_line_and_an_exit_code(command, error, code, capsys):
    def fail(args):
        raise error

    call = command(fail)
    assert call() == code
    captured = capsys.readouterr().err
    assert captured == f"podvision train: {error}\n"
    assert call("--debug") == code
    assert "Traceback" in capsys.readouterr().err


def test_a_guard_names_its_paragraph():
    assert str(GuardStop("loss_spike", "Stopped")).endswith(
        "[guard loss_spike; see docs/failures.md#loss-spike]"
    )


def test_an_error_that_is_not_for_the_user_is_a_crash(command):
    def crash(args):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command(crash)()


def test_overrides_reach_the_command_in_order_and_nothing_else_does(command):
    seen = []

    def run(args):
        seen.append((args.config, args.overrides))
        return 0

    call = command(run)
    assert call("--config.a.b=1", "--config", "f.py:tiny", "--config.c=x=y", "--config.a.b=2") == 0
    assert seen == [("f.py:tiny", ["a.b=1", "c=x=y", "a.b=2"])]


def test_an_override_without_equals_sign_is_told_how_to_write_it(command, capsys):
    call = command(lambda args: 0)
    assert call("--config.batch_size", "8") == 2
    assert "write --config.batch_size=VALUE" in capsys.readouterr().err


def test_overrides_for_a_command_without_config_are_refused(monkeypatch, capsys):
    module = types.ModuleType("fake_report", "Reports.")
    module.add_arguments = lambda parser: parser.add_argument("--workdir")
    module.run = lambda args: 0
    monkeypatch.setitem(sys.modules, "fake_report", module)
    monkeypatch.setitem(cli.COMMANDS, "report", ("fake_report", "report"))
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", "--config.seed=1"])
    assert caught.value.code == 2
    assert "commands with --config" in capsys.readouterr().err


def test_an_unknown_option_exits_with_2(command):
    with pytest.raises(SystemExit) as caught:
        command(lambda args: 0)("--nope")
    assert caught.value.code == 2


def test_the_help_of_a_command_is_its_docstring(command, capsys):
    with pytest.raises(SystemExit) as caught:
        command(lambda args: 0)("--help")
    assert caught.value.code == 0
    assert "The long help." in capsys.readouterr().out

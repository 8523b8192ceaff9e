"""`podvision <command>`: finds the command, parses its arguments, turns errors into exit codes.

Imports nothing heavy: a command's module is imported when it is called, jax inside its `run`.
A command module has `add_arguments(parser)` and `run(args) -> exit code`; its docstring is help.
Where a system brings arguments of its own, it also has `add_arguments_of_system(parser, argv)`;
where the command answers to a signal by itself, `ON_SIGNAL` (see `training.stop`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from training import stop
from training.errors import ConfigError, PodvisionError

# Command -> (module, one line of help).
COMMANDS = {
    "train": ("launch.train", "train, or resume with the same command"),
    "evaluate": ("launch.evaluate", "restore a checkpoint and evaluate it"),
    "preflight": (
        "launch.preflight.command",
        "know before a pod is paid for that a run compiles, fits, finds its data and resumes",
    ),
    "overfit": ("launch.overfit", "prove on a few fixed examples that a config can learn"),
    "prepare": ("launch.prepare", "prepare data for a system"),
    "import": ("launch.import_weights", "start from a model of another program"),
    "export": ("launch.export", "write a trained model in another format"),
    "predict": ("launch.predict", "use a trained model"),
    "view": ("launch.view", "look at a model in the browser, also in training"),
    "report": ("launch.report", "write report.html of a work folder"),
    "profile": ("launch.profile", "trace the next updates of a run that is training"),
    "replay": ("launch.replay", "re-run a recorded bad step"),
    "demo": ("launch.demo", "synthetic data, training, evaluation, report; minutes on a CPU"),
    "pod": ("launch.pod.command", "a run on every worker of a TPU slice, by gcloud"),
    "podsim": ("launch.podsim", "a multi-host run as processes on this machine"),
}


def build_parser(command: str, argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of one command.

    Args:
      argv: the words after the command; they say whose arguments there are, where a system has its
        own.

    Raises:
      PodvisionError: `argv` names a system or work folder that the command does not serve.
    """
    module_name, summary = COMMANDS[command]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(
        f"podvision {command}",
        description=module.__doc__ or summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.add_arguments(parser)
    if hasattr(module, "add_arguments_of_system"):
        module.add_arguments_of_system(parser, argv)
    parser.set_defaults(run=module.run)
    return parser


def usage() -> str:
    """The help page: every command with its line."""
    lines = ["usage: podvision <command> [arguments]", ""]
    width = max(map(len, COMMANDS))
    lines += [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join([*lines, "", "podvision <command> --help shows a command's arguments"])


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code.

    0 done, 2 usage, 3 guard, 4 data, 130 or 143 interrupted; 1 is left to crashes.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    command, rest = argv[0], argv[1:]
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see podvision --help"
        print(f"podvision: unknown command {command!r}; {hint}", file=sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[command][0])
    with stop.listening(getattr(module, "ON_SIGNAL", stop.END), command):
        return run(command, rest)


def run(command: str, argv: list[str]) -> int:
    """Parses and runs one command; its errors become a sentence and an exit code."""
    try:
        args, overrides = split_overrides(build_parser(command, argv), argv)
        args.overrides = overrides
        return args.run(args)
    except PodvisionError as error:
        # Not `args.debug`: the error may be one of parsing.
        if "--debug" in argv:
            traceback.print_exc()
        print(f"podvision {command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"podvision {command}: {stop.interrupted()}", file=sys.stderr)
        return stop.exit_code()
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: not an error of this program. Python
        # writes out what is buffered when it exits, which would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def split_overrides(
    parser: argparse.ArgumentParser, argv: list[str]
) -> tuple[argparse.Namespace, list[str]]:
    """Parsed arguments and the `a.b=text` parts of `--config.a.b=text`.

    Raises:
      ConfigError: an override without a value.
    """
    # What follows `--` is for another command (of podsim), overrides included.
    separator = argv.index("--") if "--" in argv else len(argv)
    head, tail = argv[:separator], argv[separator:]
    prefix = "--config."
    overrides = [text.removeprefix(prefix) for text in head if text.startswith(prefix)]
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"--config.{override} has no value; write --config.{override}=VALUE")
    args = parser.parse_args([text for text in head if not text.startswith(prefix)] + tail)
    if overrides and not (hasattr(args, "config") or getattr(args, "takes_overrides", False)):
        parser.error("--config.KEY=VALUE is for commands with --config, and for evaluate")
    return args, overrides


def start() -> None:
    """The program."""
    code = main()
    # Without jax there are no other hosts; importing it only to ask would take seconds.
    if "jax" in sys.modules:
        from training import distributed

        distributed.end(code)
    sys.exit(code)


if __name__ == "__main__":
    start()

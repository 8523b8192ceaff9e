"""Commands that a system brings: the module `<system>.<command>` has the arguments and the work.

Two ways to say whose command it is: `podvision prepare SYSTEM ...` names the system, `podvision
export --workdir DIR ...` finds it in the work folder. A module imports nothing heavy until its
command runs, so that a command line is parsed in a moment.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from types import ModuleType

from training.record.run_folder import saved_config
from training.registry import system_module, systems_with


def add_named_systems(
    parser: argparse.ArgumentParser,
    command: str,
    argv: Sequence[str],
    add_shared: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Lets the first word name a system, and the words after it be that system's arguments.

    Args:
      add_shared: adds the arguments that the command has for every system.

    Raises:
      ConfigError: the word in `argv` is no system with this command; names those that have it.
    """
    # Before argparse would refuse it with a list of choices: this error says which systems serve.
    if argv and not argv[0].startswith("-"):
        system_module(argv[0], command)
    systems = parser.add_subparsers(dest="system", required=True, metavar="SYSTEM")
    for system in systems_with(command):
        module = system_module(system, command)
        child = systems.add_parser(
            system,
            description=module.__doc__,
            help=summary(module),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # SUPPRESS: without it the default of this parser would overwrite an earlier --debug.
        child.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks"
        )
        if add_shared is not None:
            add_shared(child)
        module.add_arguments(child)


def add_arguments_of_run(
    parser: argparse.ArgumentParser, command: str, argv: Sequence[str]
) -> None:
    """Adds the arguments that the system of the work folder in `argv` has for the command.

    Without a work folder every system's arguments are told below the help, under its name.

    Raises:
      InputError: the folder holds no run.
      ConfigError: the command has nothing for its system.
    """
    workdir = named_value(argv, "--workdir")
    if workdir is None:
        parser.epilog = arguments_of_all(command)
        return
    # As text: a config that this version refuses is refused by the command, not by its parser.
    add_arguments_of_system(parser, command, str(saved_config(workdir)["system"]))


def add_arguments_of_system(parser: argparse.ArgumentParser, command: str, system: str) -> None:
    """Adds what a system has for the command.

    Raises:
      ConfigError: it has nothing for it.
    """
    system_module(system, command).add_arguments(parser)
    parser.set_defaults(system=system)


def named_value(argv: Sequence[str], name: str) -> str | None:
    """The value of an argument such as `--workdir` in a command line that cannot be parsed yet."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument(name, dest="value")
    try:
        return first.parse_known_args(list(argv))[0].value
    except argparse.ArgumentError:  # no value behind it: the whole parser says so
        return None


def arguments_of_all(command: str) -> str:
    """For each system with the command: its name, what it does, and its arguments."""
    parts = []
    for system in systems_with(command):
        module = system_module(system, command)
        page = argparse.ArgumentParser(add_help=False, usage=argparse.SUPPRESS)
        module.add_arguments(page)
        parts.append(f"runs of {system}: {summary(module)}\n{page.format_help().strip()}")
    return "\n\n".join(parts)


def summary(module: ModuleType) -> str:
    """The first line of a module's docstring."""
    return (module.__doc__ or module.__name__).splitlines()[0]

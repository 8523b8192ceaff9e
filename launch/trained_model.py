"""Commands that use a trained model: restore it, then do what its system has for the command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.errors import ConfigError, InputError
from training.registry import system_module

# What an exported model folder has beside the weights; its key `system` says whose it is.
PREPROCESSING = "preprocessing.json"


def use(args: argparse.Namespace, command: str) -> int:
    """Restores the checkpoint of `args` and hands it to its system; prints what that returns.

    The module `<system>.<command>` has `check_arguments(args)`, which is called before anything is
    restored, and a function of the command's name, `(program, state, step, args) -> lines`.

    Returns:
      The exit code.
    """
    from launch.platform import run_program

    return run_program(lambda: _use(args, command), args.debug)


def _use(args: argparse.Namespace, command: str) -> int:
    import jax

    from training.checkpoint.restore import restored

    module = system_module(args.system, command)
    module.check_arguments(args)
    program, state, step = restored(args.workdir, args.step)
    with jax.set_mesh(program.layout.mesh):
        lines = getattr(module, command)(program, state, step, args)
    print("\n".join(lines))
    return 0


def system_of_folder(folder: Path) -> str:
    """The system of an exported model.

    Raises:
      InputError: no such folder, or one of another kind.
    """
    path = folder / PREPROCESSING
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["system"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}), so {folder} is no model of podvision export; give "
            "such a folder, or a run by --workdir"
        ) from error


def use_folder(args: argparse.Namespace, command: str) -> int:
    """Like `use`, with the exported model of `args.model`.

    The module has `<command>_with_folder(folder, args) -> lines`.
    """
    from launch.platform import run_program

    return run_program(lambda: _use_folder(args, command), args.debug)


def _use_folder(args: argparse.Namespace, command: str) -> int:
    module = system_module(args.system, command)
    work = getattr(module, f"{command}_with_folder", None)
    if work is None:
        raise ConfigError(f"{args.system} has no exported model for {command}; give --workdir")
    module.check_arguments(args)
    print("\n".join(work(args.model, args)))
    return 0

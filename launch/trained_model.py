"""Commands that use a trained model: restore it, then do what its system has for the command."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from launch import arguments


def use(args: argparse.Namespace, command: str, modules: Mapping[str, str]) -> int:
    """Restores the checkpoint of `args` and hands it to its system; prints what that returns.

    Args:
      command: name of the command and of the function that does it,
        `command(program, state, step, args) -> lines to print`.
      modules: system -> module with that function and `check_arguments(args)`, which is called
        before anything is restored.

    Returns:
      The exit code.
    """
    from launch.platform import run_program

    return run_program(lambda: _use(args, command, modules), args.debug)


def _use(args: argparse.Namespace, command: str, modules: Mapping[str, str]) -> int:
    import jax

    from training.checkpoint.restore import restored
    from training.record.run_folder import read_config

    module = arguments.system_module(read_config(args.workdir).system, modules, command)
    module.check_arguments(args)
    program, state, step = restored(args.workdir, args.step)
    with jax.set_mesh(program.layout.mesh):
        lines = getattr(module, command)(program, state, step, args)
    print("\n".join(lines))
    return 0

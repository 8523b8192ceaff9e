"""Commands that use a trained model: restore it, then do what its system has for the command."""

from __future__ import annotations

import argparse

from training.registry import system_module


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

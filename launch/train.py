"""Train a system, or resume: the same command goes on from the newest checkpoint.

A recipe with get_pipeline(arg) is several configs, run in turn in WORKDIR/<stage>;
--config.STAGE.KEY=VALUE changes one of them, --config.KEY=VALUE all.

Exit codes: 0 done, or cleanly stopped on request (DONE or PREEMPTED in the work folder;
PODVISION_PREEMPTED_EXIT_CODE sets another code for the second), 2 refused (config, data or
checkpoint), 3 stopped by a guard, 4 too much unreadable data.
"""

from __future__ import annotations

import argparse

from launch import arguments
from training import stop

ON_SIGNAL = stop.ASK  # it saves first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser)
    arguments.add_workdir(parser)
    parser.add_argument(
        "--allow-config-change",
        default="",
        metavar="KEY,...",
        help="keys that may differ from those of the checkpoint (data allows other data)",
    )


def run(args: argparse.Namespace) -> int:
    from launch.platform import run_program

    stop.preempted_exit_code()  # a wrong one is refused now, not when it is needed
    return run_program(lambda: train(args), args.debug)


def train(args: argparse.Namespace) -> int:
    """Loads the config, makes the task and trains; the stages of a pipeline one after the other."""
    import sys

    from training.config_reads import watched
    from training.loop import fit
    from training.pipeline import run_pipeline
    from training.registry import load_stages, make_task

    stages = load_stages(args.config, args.overrides)
    allowed = tuple(key for key in args.allow_config_change.split(",") if key)
    outcome = run_pipeline(
        stages,
        args.workdir,
        lambda config, folder: fit(make_task(watched(config)), folder, args.overrides, allowed),
        lambda sentence: print(sentence, file=sys.stderr, flush=True),
        allowed,
    )
    # 0 also where it was preempted, a clean end, unless whoever starts it again asks for another
    # code: the marker in the folder tells the two apart.
    return stop.preempted_exit_code() if outcome == "preempted" else 0

"""`podvision report`: one self-contained page about a run, from its work folder."""

from __future__ import annotations

import argparse

from launch import arguments
from training.errors import EXIT_DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    arguments.add_workdir(parser)


def run(args: argparse.Namespace) -> int:
    """Writes `report.html` of a run, or of the stages of a pipeline, and prints where it is."""
    from training.record.report import write_report
    from training.record.report.pipeline import stages_of, write_pipeline_report

    write = write_pipeline_report if stages_of(args.workdir) else write_report
    print(write(args.workdir))
    return EXIT_DONE

"""Errors that a user can act on, each with the exit code that it ends the command with.

The message is one sentence: what is wrong, where (file, key, step), what to do.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_USAGE = 2  # as argparse has it; 1 is Python's own, for a crash
EXIT_GUARD = 3
EXIT_DATA = 4
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXIT_HANG = 142  # 128 + SIGALRM; like every crash it may be started again


class PodvisionError(Exception):
    """Base of the errors whose message is meant for the user; printed without a traceback."""

    exit_code = EXIT_USAGE


class ConfigError(PodvisionError):
    """A config key, command-line argument or combination of settings that cannot work."""


class InputError(PodvisionError):
    """A file, folder or array of the user's that is missing, unreadable or not what it claims."""


class CheckpointError(PodvisionError):
    """A checkpoint that is missing, incomplete or does not fit the model."""


class UnreadableCheckpoint(CheckpointError):
    """A checkpoint that is complete by name but damaged: an earlier one may serve."""


class GuardStop(PodvisionError):
    """A guard stopped the run; `docs/failures.md` has a paragraph on each guard by name."""

    exit_code = EXIT_GUARD

    def __init__(self, guard: str, message: str):
        super().__init__(
            f"{message} [guard {guard}; see docs/failures.md#{guard.replace('_', '-')}]"
        )
        self.guard = guard


class DataFault(PodvisionError):
    """More unreadable or rejected data than the configured threshold allows."""

    exit_code = EXIT_DATA

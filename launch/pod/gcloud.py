"""Commands on this machine: each has a deadline, each can be shown instead of run."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from training.errors import InputError

MISSING = (
    "gcloud is not installed; install the Google Cloud SDK and run gcloud auth login, or add "
    "--dry-run to see the commands"
)
# What gcloud says where no second try can help: rights, spelling, a project without the service.
LASTING = re.compile(
    r"PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT|does not have permission|"
    r"gcloud auth login|"
    r"has not been used in project|Invalid choice|unrecognized arguments|argument --",
    re.IGNORECASE,
)


class CommandFailed(InputError):
    """A command that failed or met its deadline; it may do better later, unless it is lasting."""

    def __init__(self, message: str, errors: str = ""):
        """`errors` is what the command wrote to stderr."""
        super().__init__(message)
        self.lasting = bool(LASTING.search(errors))


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    output: str
    errors: str


@dataclass
class Shell:
    """Runs commands, or prints them where `dry_run` is set.

    Attributes:
      dry_run: nothing is run; every command seems to succeed without output.
      show: where lines for the user go.
    """

    dry_run: bool = False
    show: Callable[[str], None] = print
    shown: list[str] = field(default_factory=list)

    def __call__(self, command: Sequence[str], seconds: float, may_fail: bool = False) -> Done:
        """Runs a command to its end.

        Args:
          seconds: deadline; the command is killed then.
          may_fail: return a failure instead of raising it.

        Raises:
          InputError: it is not installed.
          CommandFailed: it failed, or met the deadline.
        """
        text = shlex.join(command)
        if self.dry_run:
            self.show(text)
            self.shown.append(text)
            return Done(0, "", "")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=seconds,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            said = MISSING if command[0] == "gcloud" else f"{command[0]} is not installed"
            raise InputError(said) from error
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(
                f"{_short(text)} did not end within {seconds:.0f} s; look at the workers with "
                "podvision pod status, then try again"
            ) from error
        if done.returncode and not may_fail:
            words = [line for line in done.stderr.splitlines() if line.strip()]
            raise CommandFailed(
                f"{_short(text)} failed with code {done.returncode}: "
                f"{words[-1].strip()[:300] if words else 'it said nothing'}",
                done.stderr,
            )
        return Done(done.returncode, done.stdout, done.stderr)


def _short(text: str) -> str:
    return text if len(text) < 120 else f"{text[:117]}..."

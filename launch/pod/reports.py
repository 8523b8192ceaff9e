"""What the workers answer: lines that begin with `@pod`, one or more for each worker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from training.errors import InputError

MARK = "@pod\t"


class WorkerFault(InputError):
    """Workers that do not answer, or not as they should: out of reach, out of order, taken away."""


@dataclass(frozen=True)
class Worker:
    """The state of a run on one worker.

    Attributes:
      state: `running`, `ended`, or `none` where nothing was ever started.
      attempt: name of the newest attempt, `-` without one.
      code: exit code of an attempt that ended; None otherwise.
      commit: of the pushed tree.
      holders: processes that hold the chips.
      tail: last lines of its log.
    """

    number: int
    state: str
    attempt: str
    code: int | None
    commit: str
    holders: str
    tail: tuple[str, ...] = ()


def reports(output: str, kind: str) -> dict[int, list[str]]:
    """Worker -> the fields of its last report of a kind; a repeated command reports twice."""
    found = {}
    for fields in _lines(output):
        if fields[0] == kind and len(fields) > 1 and fields[1].isdecimal():
            found[int(fields[1])] = fields[2:]
    return dict(sorted(found.items()))


def of_all(output: str, kind: str, hosts: int, errors: str = "") -> dict[int, list[str]]:
    """The same, of every worker.

    Raises:
      WorkerFault: some workers did not answer.
    """
    found = reports(output, kind)
    missing = [number for number in range(hosts) if number not in found]
    if missing:
        words = [line for line in errors.splitlines() if line.strip()]
        raise WorkerFault(
            f"no answer to {kind} from worker {', '.join(map(str, missing))} of {hosts}"
            f"{': ' + words[-1].strip()[:300] if words else ''}; see podvision pod status, or have "
            "the slice made again"
        )
    return found


def workers(output: str) -> list[Worker]:
    """Every worker that answered to `scripts.status`, by number."""
    tails: dict[int, list[str]] = {}
    for fields in _lines(output):
        if fields[0] == "tail" and len(fields) > 1 and fields[1].isdecimal():
            tails.setdefault(int(fields[1]), []).append("\t".join(fields[2:]))
    found = []
    for number, fields in reports(output, "status").items():
        state, attempt, code, commit, holders = [*fields, *[""] * 5][:5]
        exit_code = int(code) if code.lstrip("-").isdecimal() else None
        tail = tuple(tails.get(number, ()))
        found.append(Worker(number, state, attempt, exit_code, commit, holders.strip(), tail))
    return found


def _lines(output: str) -> Iterable[list[str]]:
    for line in output.splitlines():
        # gcloud puts the name of the worker in front of a line where there are several.
        place = line.find(MARK)
        if place >= 0:
            yield line[place + len(MARK) :].split("\t")

"""What each verb of `podvision pod` does with a slice; `babysit.py` calls the same functions."""

from __future__ import annotations

import configparser
import hashlib
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from launch.pod import scripts
from launch.pod.gcloud import Shell
from launch.pod.reports import Worker, WorkerFault, of_all, reports, workers
from launch.pod.slices import GONE, Slice
from training.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SETUP_SECONDS, SCRIPT_SECONDS = 1800.0, 180.0
LEAST_FREE_GIB, CLOCKS_APART = 10, 30  # of a worker's disk; seconds between two clocks
ARCHIVE = "podvision.tar.gz"


class SliceEnded(InputError):
    """A slice that was taken away, or never came, while it was waited for."""


@dataclass(frozen=True)
class Tree:
    """A committed tree as an archive, and the changes beside it where they were allowed."""

    archive: Path
    digest: str
    commit: str


@dataclass
class Pod:
    """A slice, a run on it, and how commands are given.

    Attributes:
      run: name of the run; its folders on the workers have it.
      source: the repository that is pushed.
      environment: variables of the run.
    """

    slice: Slice
    shell: Shell
    run: str = "run"
    source: Path = ROOT
    environment: dict[str, str] = field(default_factory=dict)

    def say(self, text: str) -> None:
        self.shell.show(text)

    def create(self) -> None:
        """Asks for the slice."""
        self.slice.create(self.shell)

    def wait_until_ready(self, seconds: float, poll: float = 20.0) -> None:
        """Waits for READY and for an answer of every worker: one does not mean the other.

        Raises:
          SliceEnded: it ended.
          InputError: it is not there in time.
        """
        deadline = time.monotonic() + seconds
        while not self.shell.dry_run:
            state = self.slice.state(self.shell)
            if state == "READY" and self._answers():
                return
            if state in GONE:
                raise SliceEnded(
                    f"{self.slice.name} is {state}; podvision pod delete, then create it again"
                )
            if time.monotonic() > deadline:
                raise InputError(
                    f"{self.slice.name} is {state} after {seconds:.0f} s, or its workers do not "
                    "answer; look at it in the console, or wait longer (--wait)"
                )
            time.sleep(poll)

    def _answers(self) -> bool:
        done = self.slice.ssh(self.shell, scripts.status(self.run, 1), SCRIPT_SECONDS)
        return len(reports(done.output, "status")) == self.slice.hosts

    def setup(self) -> None:
        """The same Python and packages on every worker; then what the workers are like.

        Raises:
          WorkerFault: a worker does not answer, or differs from the others.
        """
        packages, stamp = wanted_packages(self.source)
        make = "mkdir -p .pod"
        self.slice.ssh(self.shell, make, SCRIPT_SECONDS, may_fail=False)
        self.slice.copy(self.shell, f"{self.source / 'constraints.txt'}", ".pod/constraints.txt")
        script = scripts.setup(packages, stamp)
        done = self.slice.ssh(self.shell, script, SETUP_SECONDS)
        if self.shell.dry_run:
            return
        found = of_all(done.output, "setup", self.slice.hosts, done.errors)
        check_setup(found)
        for number, (_, python, free, _, holders) in found.items():
            held = f", chips held by process {holders.strip()}" if holders.strip() else ""
            self.say(f"worker {number}: {python}, {free} GiB free{held}")

    def push(self, tree: Tree) -> None:
        """The tree on every worker, the same on all.

        Raises:
          WorkerFault: an archive arrived damaged, or not at all.
          InputError: the run is running.
        """
        self.slice.copy(self.shell, f"{tree.archive}", ARCHIVE)
        script = scripts.unpack(self.run, ARCHIVE, tree.digest, tree.commit)
        done = self.slice.ssh(self.shell, script, SCRIPT_SECONDS)
        if self.shell.dry_run:
            return
        found = of_all(done.output, "push", self.slice.hosts, done.errors)
        if any(fields[0] == "running" for fields in found.values()):
            raise InputError(f"{self.run} is running; podvision pod stop it before a push")
        other = [number for number, fields in found.items() if fields != [tree.digest, tree.commit]]
        if other:
            raise WorkerFault(
                f"worker {', '.join(map(str, other))} has another archive than was sent; push again"
            )
        self.say(f"{tree.commit} is on all {self.slice.hosts} workers")

    def start(self, command: list[str]) -> None:
        """Starts the command on every worker, unless it runs there.

        Raises:
          WorkerFault: a worker did not start it.
          InputError: there is no tree there, or some run an older attempt.
        """
        python = ["../../../.pod/venv/bin/python", "-m", "launch.cli", *command]
        number = self._next_attempt()
        script = scripts.start(self.run, python, self.slice.hosts, self.environment, number)
        done = self.slice.ssh(self.shell, script, SCRIPT_SECONDS)
        if self.shell.dry_run:
            return
        found = of_all(done.output, "start", self.slice.hosts, done.errors)
        if any(fields[0] == "not-pushed" for fields in found.values()):
            raise InputError(f"there is no tree for {self.run} on the workers; push it first")
        for number, (how, attempt) in found.items():
            self.say(f"worker {number}: {how} ({attempt})")
        if len({tuple(fields) for fields in found.values()}) > 1:
            raise InputError(
                "the workers are not in the same attempt: some ran already; podvision pod stop, "
                "then start again"
            )

    def _next_attempt(self) -> int:
        """One number for all workers; those that were started apart would count differently."""
        done = self.slice.ssh(self.shell, scripts.status(self.run, 1), SCRIPT_SECONDS)
        if self.shell.dry_run:
            return 1
        of_all(done.output, "status", self.slice.hosts, done.errors)
        numbers = [one.attempt.rpartition("-")[2] for one in workers(done.output)]
        return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)

    def workers(self, lines: int = 40) -> list[Worker]:
        """How the newest attempt stands on each worker that answers."""
        done = self.slice.ssh(self.shell, scripts.status(self.run, lines), SCRIPT_SECONDS)
        return workers(done.output)

    def stop(self, grace: int) -> None:
        """Lets every worker save and end; kills what is left after `grace` seconds.

        Raises:
          InputError: a worker did not answer, had to be killed, or lived through that.
        """
        done = self.slice.ssh(self.shell, scripts.stop(self.run, grace), grace + SCRIPT_SECONDS)
        if self.shell.dry_run:
            return
        found = of_all(done.output, "stop", self.slice.hosts, done.errors)
        for number, (how, code, holders) in found.items():
            held = f"; process {holders.strip()} holds the chips" if holders.strip() else ""
            self.say(f"worker {number}: {how}, exit code {code}{held}")
        stuck = [number for number, fields in found.items() if fields[0] == "stuck"]
        if stuck:
            raise WorkerFault(
                f"worker {', '.join(map(str, stuck))} has processes that SIGKILL did not end; "
                "delete the slice and create it again"
            )
        killed = [number for number, fields in found.items() if fields[0] == "killed"]
        if killed:
            raise InputError(
                f"worker {', '.join(map(str, killed))} did not end within {grace} s and was killed;"
                " what was saved before is whole, and a start goes on from there"
            )

    def newest_checkpoint(self, workdir: str) -> int:
        """The newest committed step, -1 without one or where it cannot be known."""
        if workdir.startswith("gs://"):
            command = ["gcloud", "storage", "ls", f"{workdir.rstrip('/')}/checkpoints/"]
            done = self.shell(command, SCRIPT_SECONDS, may_fail=True)
            names = [line.rstrip("/").rpartition("/")[2] for line in done.output.splitlines()]
            return max((int(name) for name in names if name.isdecimal()), default=-1)
        script = scripts.newest_checkpoint(workdir)
        done = self.slice.ssh(self.shell, script, SCRIPT_SECONDS)
        found = reports(done.output, "checkpoint")
        return max((int(fields[0]) for fields in found.values()), default=-1)


def check_setup(found: dict[int, list[str]]) -> None:
    """Refuses workers that would not train together.

    Args:
      found: worker -> stamp, Python, free GiB, clock, holders.

    Raises:
      WorkerFault: with the workers and what is wrong with them.
    """
    for place, name in ((0, "packages"), (1, "Pythons")):
        kinds = {fields[place] for fields in found.values()}
        if len(kinds) > 1:
            raise WorkerFault(f"the workers have different {name}: {', '.join(sorted(kinds))}")
    full = [number for number, fields in found.items() if int(fields[2]) < LEAST_FREE_GIB]
    if full:
        raise WorkerFault(
            f"worker {', '.join(map(str, full))} has less than {LEAST_FREE_GIB} GiB of disk left; "
            "delete what is not needed, or create the slice with a larger boot disk"
        )
    clocks = [int(fields[3]) for fields in found.values()]
    if max(clocks) - min(clocks) > CLOCKS_APART:
        raise WorkerFault(
            f"the clocks of the workers are {max(clocks) - min(clocks)} s apart; restart chrony "
            "there (sudo systemctl restart chrony)"
        )


def requirements(source: Path) -> list[str]:
    """What the program needs on a TPU host: `install_requires`, and the extras tpu and gcs."""
    config = configparser.ConfigParser()
    config.read(source / "setup.cfg", encoding="utf-8")
    texts = [config["options"]["install_requires"]]
    texts += [config["options.extras_require"][extra] for extra in ("tpu", "gcs")]
    lines = [line.partition("#")[0].strip() for text in texts for line in text.splitlines()]
    return [line for line in lines if line]


def wanted_packages(source: Path) -> tuple[list[str], str]:
    """Requirements, and a stamp of them and of their pinned versions."""
    packages = requirements(source)
    pins = (source / "constraints.txt").read_bytes()
    return packages, hashlib.sha256(pins + repr(packages).encode()).hexdigest()[:16]


def pack(source: Path, allow_dirty: bool, folder: Path | None = None) -> Tree:
    """The committed tree of a repository; with `allow_dirty` with the changes to tracked files.

    Raises:
      InputError: it is no repository, or has changes that are not committed.
    """
    commit = _git(source, "rev-parse", "HEAD").strip()
    dirty = [line for line in _git(source, "status", "--porcelain").splitlines() if line]
    if dirty and not allow_dirty:
        which = dirty[0].strip() + (", ..." if len(dirty) > 1 else "")
        raise InputError(
            f"the working tree has changes that are not committed ({which}): commit them, "
            "so that a result can be told from what made it, or add --allow-dirty"
        )
    # A commit of the changes that no branch has: exactly what is pushed can be found again.
    made = _git(source, "stash", "create").strip() if dirty else ""
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    archive = folder / ARCHIVE
    _git(source, "archive", "--format=tar.gz", f"--output={archive}", made or commit)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Tree(archive, digest, made or commit)


def _git(source: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", f"{source}", *words], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise InputError(f"git {' '.join(words[:2])} failed in {source}: {done.stderr.strip()}")
    return done.stdout

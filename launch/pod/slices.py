"""A slice by the words of gcloud: every command that podvision gives it stands in this file.

Two ways to get one: `tpu-vm create`, at once or not at all, and a *queued resource*, which waits
for capacity. Both give nodes that the same commands reach.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from launch.pod.gcloud import CommandFailed, Done, Shell
from launch.pod.reports import WorkerFault
from training.errors import ConfigError, InputError

CREATE_SECONDS, DELETE_SECONDS, ASK_SECONDS = 1800.0, 900.0, 120.0
LABEL = "podvision"
# States in which a node or queued resource ended by itself.
GONE = ("FAILED", "SUSPENDED", "PREEMPTED", "TERMINATED")
# States of one that will never run again and has to be deleted.
ENDED = frozenset((*GONE, "STOPPED", "STOPPING", "SUSPENDING", "HIDDEN", "DELETING"))
RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
# TensorCores that the number in the name counts, for each host of four chips.
PER_HOST = {"v4": 8, "v5p": 8, "v5litepod": 4, "v6e": 4}
# Without a terminal nothing may be asked, and a lost link is noticed within a minute.
SSH_FLAGS = ("-oBatchMode=yes", "-oConnectTimeout=30", "-oServerAliveInterval=15")


@dataclass(frozen=True)
class Slice:
    """Which slice, and how it is bought.

    Attributes:
      accelerator: such as `v4-32`.
      runtime: image of the workers; None: the generation's usual one.
      queued: ask by a queued resource, which waits for capacity.
    """

    name: str
    zone: str
    accelerator: str = "v4-32"
    project: str | None = None
    runtime: str | None = None
    spot: bool = False
    queued: bool = False

    def __post_init__(self):
        family, _, size = self.accelerator.partition("-")
        if family not in PER_HOST or not size.isdecimal() or int(size) < 4:
            raise ConfigError(
                f"--accelerator {self.accelerator} is not known; known are "
                f"{', '.join(f'{name}-N' for name in PER_HOST)}"
            )

    @property
    def family(self) -> str:
        return self.accelerator.partition("-")[0]

    @property
    def hosts(self) -> int:
        """Workers of the slice."""
        return max(1, int(self.accelerator.partition("-")[2]) // PER_HOST[self.family])

    @property
    def chips(self) -> int:
        per_chip = 2 if self.family in ("v4", "v5p") else 1
        return int(self.accelerator.partition("-")[2]) // per_chip

    @property
    def _where(self) -> list[str]:
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]

    def create(self, shell: Shell) -> None:
        """Asks for the slice."""
        runtime = self.runtime or RUNTIMES[self.family]
        spot = ["--spot"] if self.spot else []
        label = [f"--labels={LABEL}={self.name}"]
        if self.queued:
            command = [
                *_tpus("queued-resources", "create", self.name), f"--node-id={self.name}",
                *self._where, f"--accelerator-type={self.accelerator}",
                f"--runtime-version={runtime}", *spot, *label, "--quiet",
            ]  # fmt: skip
        else:
            command = [
                *_tpus("tpu-vm", "create", self.name), *self._where,
                f"--accelerator-type={self.accelerator}", f"--version={runtime}", *spot, *label,
                "--quiet",
            ]  # fmt: skip
        shell(command, CREATE_SECONDS)

    def state(self, shell: Shell) -> str:
        """READY, another word of gcloud's, or ABSENT where there is no such slice.

        Raises:
          CommandFailed: gcloud fails for another reason.
        """
        command = [*_tpus("tpu-vm", "describe", self.name), *self._where, "--format=json"]
        done = shell(command, ASK_SECONDS, may_fail=True)
        if shell.dry_run:
            return "READY"
        if done.code == 0:
            return str(_json(done.output, command).get("state", "UNKNOWN"))
        if "NOT_FOUND" not in done.errors and "not found" not in done.errors:
            raise CommandFailed(
                f"gcloud cannot describe {self.name}: {done.errors.strip()[-300:]}", done.errors
            )
        return self._queue_state(shell) if self.queued else "ABSENT"

    def _queue_state(self, shell: Shell) -> str:
        command = [*_tpus("queued-resources", "describe", self.name), *self._where, "--format=json"]
        done = shell(command, ASK_SECONDS, may_fail=True)
        if done.code:
            return "ABSENT"
        return str(_json(done.output, command).get("state", {}).get("state", "UNKNOWN"))

    def ssh(
        self, shell: Shell, script: str, seconds: float, worker: str = "all", may_fail: bool = True
    ) -> Done:
        """Runs a script on the workers.

        gcloud repeats it by itself where the link is lost, so a script must bear to be repeated.

        Raises:
          WorkerFault: the deadline has passed; without `may_fail` also a worker that fails.
        """
        flags = [f"--ssh-flag={flag}" for flag in SSH_FLAGS]
        command = [
            *_tpus("tpu-vm", "ssh", self.name), *self._where, f"--worker={worker}", *flags,
            "--quiet", f"--command={script}",
        ]  # fmt: skip
        return self._reach(shell, command, seconds, may_fail)

    def copy(self, shell: Shell, source: str, target: str, seconds: float = 900.0) -> None:
        """Copies a file to the same place on all workers.

        Raises:
          WorkerFault: it did not arrive on all of them.
        """
        command = [
            *_tpus("tpu-vm", "scp", source, f"{self.name}:{target}"), *self._where, "--worker=all",
            "--quiet",
        ]  # fmt: skip
        self._reach(shell, command, seconds, may_fail=False)

    def _reach(self, shell: Shell, command: list[str], seconds: float, may_fail: bool) -> Done:
        try:
            return shell(command, seconds, may_fail=may_fail)
        except CommandFailed as error:
            if error.lasting:
                raise
            raise WorkerFault(f"{error}") from error

    def delete(self, shell: Shell) -> None:
        """Deletes the slice; that it is gone already is no failure."""
        kind = ["queued-resources", "delete", self.name, "--force"]
        if not self.queued:
            kind = ["tpu-vm", "delete", self.name]
        done = shell([*_tpus(*kind), *self._where, "--quiet"], DELETE_SECONDS, may_fail=True)
        gone = "NOT_FOUND" in done.errors or "not found" in done.errors
        if done.code and not gone:
            raise CommandFailed(
                f"gcloud could not delete {self.name}, which costs money while it stands: "
                f"{done.errors.strip()[-300:]}",
                done.errors,
            )


def list_all(shell: Shell, zone: str, project: str | None) -> list[dict]:
    """The slices of a zone that podvision made, and all queued resources, as gcloud describes them.

    Queued resources are not chosen by label: one that failed may not have one, and costs quota.
    """
    where = [f"--zone={zone}", *([f"--project={project}"] if project else []), "--format=json"]
    found = []
    for kind, chosen in (("tpu-vm", [f"--filter=labels.{LABEL}:*"]), ("queued-resources", [])):
        done = shell([*_tpus(kind, "list"), *where, *chosen], ASK_SECONDS)
        found += [{"kind": kind, **row} for row in json.loads(done.output or "[]")]
    return found


def _tpus(*words: str) -> list[str]:
    return ["gcloud", "compute", "tpus", *words]


def _json(text: str, command: list[str]) -> dict:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{' '.join(command[:5])} gave no JSON: {text[:200]}") from error

"""A cloud of folders (`fake_gcloud.py`), a small repository to push, a stand-in for training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import cli
from launch.pod.verbs import wanted_packages

HERE = Path(__file__).parent
# Plays the Python of the workers: what `launch.cli` would do is said by $FAKE_CLOUD/mode, a line
# for each attempt of worker 0, the last one for all further attempts.
PYTHON = r"""#!/bin/bash
if [ "$1" = -V ]; then echo Python 3.11.9; exit 0; fi
attempt=$(basename "$(readlink "$HOME/.pod/run/current")"); number=${attempt#attempt-}
echo "training on worker $TPU_WORKER_ID of $PODVISION_JOB_HOSTS: $*"
[ -n "${TEXT-}" ] && printf '%s' "$TEXT" > "$HOME/text"
total=$(cat "$FAKE_CLOUD/starts" 2>/dev/null || echo 0)
if [ "$TPU_WORKER_ID" = 0 ]; then total=$((total + 1)); echo $total > "$FAKE_CLOUD/starts"; fi
# Worker 0 tells the others which start this is; without it they go on after a while.
told="$HOME/../worker-0/.pod/run/$attempt/told"
[ "$TPU_WORKER_ID" = 0 ] && touch "$told"
for once in $(seq 500); do [ -e "$told" ] && break; sleep 0.02; done
lines=$(wc -l < "$FAKE_CLOUD/mode"); at=$(cat "$FAKE_CLOUD/starts" 2>/dev/null || echo 1)
[ "$at" -gt "$lines" ] && at=$lines
mode=$(sed -n "${at}p" "$FAKE_CLOUD/mode")
trap 'echo "asked to stop: all is saved up to step 5"; exit 0' TERM
case $mode in
  forever) while :; do sleep 0.05; done;;
  stubborn) trap "" TERM; while :; do sleep 0.05; done;;
  refused) echo "podvision train: config.batch_size = 7 does not divide"; exit 2;;
  crash) echo "RuntimeError: boom"; exit 1;;
  progress-crash) mkdir -p "$FAKE_CLOUD/work/checkpoints/$((total * 10))"; exit 1;;
  alone) [ "$TPU_WORKER_ID" = 1 ] && echo "RuntimeError: boom" && exit 1
         while :; do sleep 0.05; done;;
  busy) [ "$TPU_WORKER_ID" = 1 ] && echo "open(/dev/vfio/0): Device or resource busy" && exit 1
        echo "coordination service: heartbeat lost"; exit 134;;
  stopped) echo "asked to stop: all is saved up to step 5"; exit 0;;
  done) echo "all updates made"; exit 0;;
esac
"""


@pytest.fixture
def source(tmp_path):
    """A repository with what a push and a setup look at."""
    folder = tmp_path / "source"
    folder.mkdir()
    root = HERE.parents[2]
    for name in ("setup.cfg", "constraints.txt"):
        (folder / name).write_bytes((root / name).read_bytes())
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    return folder


class Cloud:
    """The folder of the fake and a way to give commands."""

    def __init__(self, folder: Path, source: Path, capsys):
        self.folder, self.source, self.capsys = folder, source, capsys

    def mode(self, *lines: str) -> None:
        """What training does at its first, second, ... start."""
        (self.folder / "mode").write_text("".join(f"{line}\n" for line in lines))

    def fault(self, name: str, times: int = 1, later: int = 0) -> None:
        """Plants a failure of `fake_gcloud.py`, for the chances after the first `later`."""
        (self.folder / "faults" / name).write_text(f"{times} {later}")

    def __call__(self, verb: str, *more: str, code: int = 0) -> str:
        """Output of a verb on the slice `eyes` of two workers."""
        got = cli.main(
            [
                "pod",
                verb,
                "eyes",
                "--zone",
                "here-a",
                "--accelerator",
                "v4-16",
                "--source",
                str(self.source),
                *more,
            ]
        )
        said = self.capsys.readouterr()
        assert got == code, said
        return said.out + said.err

    def ready(self, *modes: str) -> None:
        """A slice with the tree on it."""
        self.mode(*modes)
        for verb in ("create", "setup", "push"):
            self(verb)

    def until(self, *words: str) -> str:
        """The status, once it has all the words."""
        for _ in range(200):
            said = self("status", code=self.status_code)
            if all(word in said for word in words):
                return said
            time.sleep(0.05)
        raise AssertionError(said)

    status_code = 0

    def calls(self, verb: str) -> list[list[str]]:
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return [call for call in map(json.loads, lines) if call[3:4] == [verb]]

    def home(self, worker: int) -> Path:
        return self.folder / "eyes" / f"worker-{worker}"


@pytest.fixture
def cloud(tmp_path, monkeypatch, source, capsys):
    folder = tmp_path / "cloud"
    binaries = tmp_path / "bin"
    python = folder / "template" / ".pod" / "venv" / "bin" / "python"
    for path in (folder / "faults", binaries, python.parent):
        path.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    (folder / "template" / ".pod" / "stamp").write_text(wanted_packages(source)[1] + "\n")
    program = binaries / "gcloud"
    program.write_text(f'#!/bin/bash\nexec {sys.executable} -I -S {HERE / "fake_gcloud.py"} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_CLOUD", str(folder))
    found = Cloud(folder, source, capsys)
    yield found
    if (folder / "eyes").exists():
        subprocess.run([str(program), "compute", "tpus", "tpu-vm", "delete", "eyes"], check=True)

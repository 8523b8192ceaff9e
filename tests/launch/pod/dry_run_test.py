"""`--dry-run` prints what would be done: the transcripts in `transcripts/` are compared.

`PODVISION_WRITE_TRANSCRIPTS=1` writes them anew; look at the difference before it is committed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from launch import cli
from launch.pod import command
from launch.pod.verbs import Tree

HERE = Path(__file__).parent / "transcripts"
TRAIN = "--command=train --config configs/jepa3d/v4_32.py --workdir gs://bucket/run"
CASES = {
    "create": ["create", "eyes"],
    "create_spot_queued": ["create", "eyes", "--spot", "--queued", "--project=p"],
    "create_v6e": ["create", "eyes", "--accelerator=v6e-16"],
    "push": ["push", "eyes"],
    "start": ["start", "eyes", TRAIN],
    "status": ["status", "eyes"],
    "logs": ["logs", "eyes"],
    "stop": ["stop", "eyes"],
    "delete": ["delete", "eyes"],
    "delete_queued": ["delete", "eyes", "--queued"],
    "list": ["list"],
}


def printed(words, monkeypatch, capsys) -> str:
    tree = Tree(Path("/tmp/podvision.tar.gz"), "d" * 64, "c" * 40)
    monkeypatch.setattr(command, "pack", lambda source, dirty: tree)
    monkeypatch.setenv("PATH", "/nowhere")  # nothing may be run
    assert cli.main(["pod", *words, "--zone=us-central2-b", "--dry-run"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", CASES)
def test_the_commands_are_those_of_the_transcript(name, monkeypatch, capsys):
    path = HERE / f"{name}.txt"
    text = printed(CASES[name], monkeypatch, capsys)
    if os.environ.get("PODVISION_WRITE_TRANSCRIPTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", [name for name in CASES if name != "create_spot_queued"])
def test_a_printed_script_is_bash(name, monkeypatch, capsys):
    text = printed(CASES[name], monkeypatch, capsys)
    scripts = [
        word.partition("=")[2] for word in shlex.split(text) if word.startswith("--command=")
    ]
    for script in scripts:
        done = subprocess.run(["/bin/bash", "-n", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_setup_and_babysit_print_a_whole_round(monkeypatch, capsys):
    setup = printed(["setup", "eyes"], monkeypatch, capsys)
    assert "jax[tpu]" in setup and "constraints.txt" in setup
    whole = printed(["babysit", "eyes", TRAIN, "--spot"], monkeypatch, capsys)
    words = [line.split()[4] for line in whole.splitlines() if line.startswith("gcloud compute")]
    assert words == ["delete", "create", "ssh", "scp", "ssh", "scp", "ssh", "ssh", "ssh", "ssh"]

"""A stand-in for gcloud: a slice is a folder with a home for each worker, ssh is a local bash.

Installed as an executable named `gcloud` at the front of PATH. `FAKE_CLOUD` names its folder:
`<slice>/state.json`, `<slice>/worker-<n>/`, `calls.jsonl`. `template/` becomes every new home.
Failures are planted by files in `faults/`, each used up when it has acted once, or as often as the
first number that is written in it; a second number says how many chances it leaves out before:

  ssh-255      the script runs, then the link is lost and gcloud runs it again, as the real one does
  dead-<n>     worker n does not answer
  full         there is no capacity for a new slice
  offline      gcloud itself cannot describe anything
  denied       the same, because the account may not
  preempt-when-<n>  contains a path: the slice is PREEMPTED once that exists
  preempt-<k>  before the k-th describe from now the slice is PREEMPTED and its workers are killed
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

CLOUD = Path(os.environ["FAKE_CLOUD"])
PER_HOST = {"v4": 8}


def main(argv: list[str]) -> int:
    with open(CLOUD / "calls.jsonl", "a") as file:
        file.write(json.dumps(argv) + "\n")
    if argv[:2] == ["storage", "ls"]:
        return 1
    assert argv[:2] == ["compute", "tpus"], argv
    kind, verb, *rest = argv[2:]
    options = {w.partition("=")[0]: w.partition("=")[2] for w in rest if w.startswith("--")}
    words = [word for word in rest if not word.startswith("--")]
    return globals()[f"{verb}_"](kind, words, options)


def create_(kind: str, words: list[str], options: dict[str, str]) -> int:
    folder = CLOUD / words[0]
    if use_up("full"):
        return fail("There is no more capacity in the zone")
    if folder.exists():
        return fail(f"ALREADY_EXISTS: {words[0]}")
    family, _, size = options["--accelerator-type"].partition("-")
    hosts = int(size) // PER_HOST[family]
    for number in range(hosts):
        shutil.copytree(CLOUD / "template", folder / f"worker-{number}", symlinks=True)
    (folder / "state.json").write_text(json.dumps({"state": "READY", "hosts": hosts}))
    return 0


def describe_(kind: str, words: list[str], options: dict[str, str]) -> int:
    folder = CLOUD / words[0]
    if use_up("offline"):
        return fail("the server could not be reached")
    if use_up("denied"):
        return fail("PERMISSION_DENIED: tpu.nodes.get")
    if not folder.exists():
        return fail(f"NOT_FOUND: {words[0]}")
    for fault in sorted((CLOUD / "faults").glob("preempt-when-*")):
        if Path(fault.read_text()).exists():
            fault.unlink()
            preempt(folder)
    for fault in sorted((CLOUD / "faults").glob("preempt-[0-9]*")):
        left = int(fault.name.partition("-")[2])
        fault.unlink()
        if left > 1:
            fault.with_name(f"preempt-{left - 1}").touch()
            continue
        preempt(folder)
    print((folder / "state.json").read_text())
    return 0


def delete_(kind: str, words: list[str], options: dict[str, str]) -> int:
    folder = CLOUD / words[0]
    if not folder.exists():
        return fail(f"NOT_FOUND: {words[0]}")
    end_workers(folder)
    shutil.rmtree(folder)
    return 0


def list_(kind: str, words: list[str], options: dict[str, str]) -> int:
    names = [path.parent.name for path in CLOUD.glob("*/state.json")] if kind == "tpu-vm" else []
    print(json.dumps([{"name": name, "state": "READY"} for name in names]))
    return 0


def ssh_(kind: str, words: list[str], options: dict[str, str]) -> int:
    folder = CLOUD / words[0]
    state = json.loads((folder / "state.json").read_text())
    if state["state"] != "READY":
        return fail(f"{words[0]} is {state['state']}")
    chosen = options["--worker"]
    numbers = range(state["hosts"]) if chosen == "all" else [int(chosen)]
    lost = use_up("ssh-255")
    worst = 0
    for _ in range(2 if lost else 1):
        running = {
            number: worker_shell(folder / f"worker-{number}", number, options["--command"])
            for number in numbers
            if not use_up(f"dead-{number}")
        }
        for number, process in running.items():
            output, errors = process.communicate(timeout=120)
            sys.stdout.write(output)
            sys.stderr.write(errors)
            if process.returncode:
                worst = worst or process.returncode
                print(f"##### Command execution on worker {number} failed with exit status "
                      f"{process.returncode}. Continuing.", file=sys.stderr)  # fmt: skip
    return worst


def worker_shell(home: Path, number: int, script: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "HOME": str(home), "TPU_WORKER_ID": str(number)}
    return subprocess.Popen(
        ["bash", "-c", script], cwd=home, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def scp_(kind: str, words: list[str], options: dict[str, str]) -> int:
    source, target = words
    name, _, place = target.partition(":")
    for home in (CLOUD / name).glob("worker-*"):
        shutil.copyfile(source, home / place)
    return 0


def preempt(folder: Path) -> None:
    end_workers(folder)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "state": "PREEMPTED"}))


def end_workers(folder: Path) -> None:
    """A machine that is taken away takes its processes with it."""
    for pid in folder.glob("worker-*/.pod/*/attempt-*/pid"):
        if not (pid.parent / "rc").exists():
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                continue


def use_up(fault: str) -> bool:
    path = CLOUD / "faults" / fault
    if not path.exists():
        return False
    times, later = map(int, path.read_text().split())
    if later:
        path.write_text(f"{times} {later - 1}")
    elif times > 1:
        path.write_text(f"{times - 1} 0")
    else:
        path.unlink()
    return not later


def fail(text: str) -> int:
    print(f"ERROR: (gcloud) {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`podvision pod VERB NAME`: a run on every worker of a TPU slice, by gcloud.

  create    ask for the slice (--queued: wait for capacity)    delete    give it back
  setup     the same Python and packages on all workers        push      the committed tree, to all
  start     --command 'train --config ... --workdir gs://...'  stop      save, and end
  status    a table of the workers; logs  the end of the log   list      what costs in a zone
  babysit   create, setup, push, start, and again after preemptions, bad nodes and crashes
  cost      dollars an hour

--dry-run prints the commands instead of giving them. Needs Python and gcloud only.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

from launch.pod import scripts
from launch.pod.babysit import Policy, babysit
from launch.pod.gcloud import Shell
from launch.pod.slices import PER_HOST, Slice, list_all
from launch.pod.verbs import ROOT, SCRIPT_SECONDS, Pod, pack
from launch.pod.verdicts import Cause, judge
from launch.preflight.prices import cost_sentence, price
from training.errors import ConfigError, InputError

VERBS = ("create", "setup", "push", "start", "status", "logs", "stop", "babysit", "delete", "list",
         "cost")  # fmt: skip
RESULTS = {Cause.RUNNING, Cause.DONE, Cause.ABSENT, Cause.PREEMPTED}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `podvision pod`."""
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("name", nargs="?", help="of the slice")
    parser.add_argument("--zone", required=True, help="such as us-central2-b")
    parser.add_argument("--project", help="default: gcloud's own")
    kinds = ", ".join(f"{family}-N" for family in PER_HOST)
    parser.add_argument("--accelerator", default="v4-32", help=f"{kinds}; default v4-32")
    parser.add_argument("--runtime", help="image of the workers; default: the generation's")
    parser.add_argument("--spot", action="store_true", help="cheaper, and taken away at any time")
    parser.add_argument(
        "--queued", action="store_true", help="a queued resource: wait for capacity"
    )
    parser.add_argument(
        "--run", default="run", dest="run_name", help="name of the run; default run"
    )
    parser.add_argument("--command", default="", help="'train --config ... --workdir gs://...'")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="of the run"
    )
    parser.add_argument(
        "--allow-dirty", action="store_true", help="push changes not committed, too"
    )
    parser.add_argument("--source", type=Path, default=ROOT, help="repository to push")
    parser.add_argument("--grace", type=int, default=120, help="seconds to save in, at a stop")
    parser.add_argument(
        "--wait", type=float, default=86_400.0, help="seconds for the slice to come"
    )
    parser.add_argument("--poll", type=float, default=60.0, help="babysit: seconds between looks")
    parser.add_argument("--restarts", type=int, default=3, help="babysit: crashes without progress")
    parser.add_argument("--lines", type=int, default=40, help="of each log")
    parser.add_argument(
        "--all", action="store_true", dest="all_workers", help="logs of all workers"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")


def run(args: argparse.Namespace) -> int:
    """Does what the verb says.

    Raises:
      ConfigError: arguments that do not go together.
      InputError: gcloud or a worker failed.
    """
    shell = Shell(args.dry_run)
    if args.verb == "list":
        rows = list_all(shell, args.zone, args.project)
        for row in rows:
            state = row.get("state", {})
            word = state.get("state") if isinstance(state, dict) else state
            print(f"{row['kind']:<17} {row.get('name', '').rpartition('/')[2]:<24} {word}")
        return 0
    pod = _pod(args, shell)
    if args.verb in ("start", "babysit"):
        command = _command(args.command)
        if args.verb == "start":
            pod.start(command)
        else:
            policy = Policy(args.poll, args.restarts, args.wait)
            tree = pack(args.source, args.allow_dirty)
            _babysit(pod, tree, command, policy)
        return 0
    return _simple(args, pod)


def _babysit(pod: Pod, tree, command: list[str], policy: Policy) -> None:
    if pod.shell.dry_run:
        # The loop has no end without answers: one round of it.
        pod.slice.delete(pod.shell)
        pod.create()
        pod.setup()
        pod.push(tree)
        pod.start(command)
        pod.workers()
        return
    babysit(pod, tree, command, _workdir(command), policy)


def _simple(args: argparse.Namespace, pod: Pod) -> int:
    if args.verb == "create":
        pod.create()
        pod.wait_until_ready(args.wait)
    elif args.verb == "setup":
        pod.setup()
    elif args.verb == "push":
        pod.push(pack(args.source, args.allow_dirty))
    elif args.verb == "stop":
        pod.stop(args.grace)
    elif args.verb == "delete":
        pod.slice.delete(pod.shell)
    elif args.verb == "cost":
        place = pod.slice
        hour = cost_sentence((1.0, 1.0), place.chips, price(place.family))
        print(f"an hour of {place.accelerator}, {place.chips} chips: {hour}")
    elif args.verb == "logs":
        _logs(pod, args.all_workers, args.lines)
    else:
        return _status(pod)
    return 0


def _logs(pod: Pod, all_workers: bool, lines: int) -> None:
    if not all_workers:
        script = scripts.follow(pod.run, lines)
        print(pod.slice.ssh(pod.shell, script, SCRIPT_SECONDS, "0", may_fail=False).output, end="")
        return
    for worker in pod.workers(lines):
        for line in worker.tail:
            print(f"[worker {worker.number}] {line}")


def _status(pod: Pod) -> int:
    """The table; exit code 2 where the workers disagree or the run ended badly."""
    found = pod.workers()
    if pod.shell.dry_run:
        return 0
    print(f"{'worker':<7}{'state':<9}{'attempt':<12}{'code':<6}{'commit':<10}last line")
    for one in found:
        code = "-" if one.code is None else str(one.code)
        last = one.tail[-1].strip()[:100] if one.tail else ""
        print(f"{one.number:<7}{one.state:<9}{one.attempt:<12}{code:<6}{one.commit[:8]:<10}{last}")
    hosts = pod.slice.hosts
    if len(found) < hosts:
        raise InputError(f"only {len(found)} of {hosts} workers answer")
    if len({(one.attempt, one.commit) for one in found}) > 1:
        raise InputError(
            "the workers disagree; podvision pod stop, push and start put them in step again"
        )
    running = any(one.state == "running" for one in found)
    failed = [one for one in found if running and one.state == "ended" and one.code != 0]
    if failed:
        first = failed[0]
        how = "was killed" if first.code is None else f"ended with code {first.code}"
        raise InputError(
            f"worker {first.number} {how} while others run; they "
            "end by themselves when they miss it, or by podvision pod stop"
        )
    verdict = judge(found, hosts)
    words = f": {verdict.words}" if verdict.words else ""
    print(f"{verdict.cause.value}{words}")
    return 0 if verdict.cause in RESULTS else 2


def _pod(args: argparse.Namespace, shell: Shell) -> Pod:
    for option, value in (("NAME", args.name), ("--run", args.run_name)):
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,60}", value or ""):
            raise ConfigError(
                f"{option} is {value!r}; give small letters, digits and hyphens, as gcloud wants"
            )
    environment = {}
    for text in args.env:
        name, sign, value = text.partition("=")
        if not sign or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"--env {text} is no NAME=VALUE")
        environment[name] = value
    place = Slice(args.name, args.zone, args.accelerator, args.project, args.runtime, args.spot,
                  args.queued)  # fmt: skip
    return Pod(place, shell, args.run_name, args.source, environment)


def _command(text: str) -> list[str]:
    words = shlex.split(text)
    if words[:1] == ["podvision"]:
        words = words[1:]
    if not words:
        raise ConfigError("--command is empty; give the words after podvision, such as 'train ...'")
    if words[0] == "train":
        _workdir(words)
    return words


def _workdir(words: list[str]) -> str:
    """The work folder of a command of `train`."""
    for place, word in enumerate(words):
        if word.startswith("--workdir="):
            return word.partition("=")[2]
        if word == "--workdir" and place + 1 < len(words):
            return words[place + 1]
    raise ConfigError("--command has no --workdir; a run on a pod needs one, in a bucket")

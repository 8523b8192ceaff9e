"""What runs on the workers, as bash. Each script bears to be run twice: gcloud repeats a command
whose link was lost.

A worker has `~/runs/RUN/src` (the pushed tree), `~/.pod/venv`, and for each start of a run
`~/.pod/RUN/attempt-N` with `cmd`, `pid`, `rc` and `log`; `current` is the newest. The lock of a run
is held by its processes through an inherited file descriptor, so that it ends when they do.

A line for the laptop begins with `@pod` and has fields between tabs: see `reports.py`.
"""

from __future__ import annotations

import shlex

# Which of the workers this is: on a TPU VM its metadata say it.
_PREFIX = """set -u
metadata=http://metadata.google.internal/computeMetadata/v1/instance/attributes
worker=${TPU_WORKER_ID:-$(curl -sf -m 5 -H Metadata-Flavor:Google $metadata/agent-worker-number)}
say() { printf '@pod'; printf '\\t%s' "$@"; printf '\\n'; }
"""
# Holders of the chips, other than through their own process list: an open device file.
_HOLDERS = """holders() {
  ls -l /proc/[0-9]*/fd 2>/dev/null | awk '/^\\/proc\\//{split($0, part, "/"); pid = part[3]}
    / -> \\/dev\\/(accel|vfio\\/)[0-9]/{print pid}' | sort -u | tr '\\n' ' '
}
"""


def setup(requirements: list[str], stamp: str) -> str:
    """Python 3.11 with the pinned packages, made once for each `stamp`; then what was found.

    Reports `setup`: stamp, Python, free GiB of the disk, clock in seconds, holders of the chips.
    """
    packages = " ".join(map(shlex.quote, requirements))
    return f"""{_PREFIX}{_HOLDERS}set -e
mkdir -p "$HOME/.pod"
exec 9>"$HOME/.pod/setup.lock"; flock 9
if [ "$(cat "$HOME/.pod/stamp" 2>/dev/null)" != {stamp} ]; then
  python=$(command -v python3.11 || command -v python3.12 || command -v python3.13 || true)
  if [ -z "$python" ]; then
    sudo apt-get -o DPkg::Lock::Timeout=600 -qq update
    sudo add-apt-repository -y ppa:deadsnakes/ppa
    sudo apt-get -o DPkg::Lock::Timeout=600 -qq install -y python3.11 python3.11-venv
    python=$(command -v python3.11)
  fi
  rm -rf "$HOME/.pod/venv"; "$python" -m venv "$HOME/.pod/venv"
  "$HOME/.pod/venv/bin/python" -m pip install --quiet -c "$HOME/.pod/constraints.txt" {packages}
  echo {stamp} > "$HOME/.pod/stamp"
fi
free=$(df -Pk "$HOME" | awk 'NR==2 {{print int($4 / 1048576)}}')
say setup "$worker" "$(cat "$HOME/.pod/stamp")" "$("$HOME/.pod/venv/bin/python" -V 2>&1)" \\
  "$free" "$(date +%s)" "$(holders)"
"""


def unpack(run: str, archive: str, digest: str, commit: str) -> str:
    """The pushed tree in place of the one before; reports `push`: digest of the archive, commit."""
    return f"""{_PREFIX}set -e
found=$(sha256sum "$HOME"/{archive} | cut -d' ' -f1)
if [ "$found" != {digest} ]; then say push "$worker" "$found" -; exit 1; fi
base="$HOME/.pod/{run}"
if [ -e "$base/lock" ] && ! flock -n "$base/lock" true; then
  say push "$worker" running -; exit 1
fi
folder="$HOME/runs"/{run}
mkdir -p "$folder"
rm -rf "$folder/new"; mkdir "$folder/new"
tar -xzf "$HOME"/{archive} -C "$folder/new"
rm -rf "$folder/src"; mv "$folder/new" "$folder/src"
echo {commit} > "$folder/commit"
say push "$worker" "$found" {commit}
"""


def start(
    run: str, command: list[str], hosts: int, environment: dict[str, str], number: int
) -> str:
    """Starts a command, detached, as attempt `number`; or says that it runs already, or that this
    attempt has been started and ended. Reports `start`.

    The command replaces its shell, and so gets the signals that go to the group of the attempt. The
    shell around it only waits: it must live through them to write down the exit code. It has a
    handler that does nothing, since a signal that is ignored would be ignored by the command too.
    """
    values = {"PODVISION_JOB_HOSTS": str(hosts), "TPU_LOG_DIR": "disabled", **environment}
    exports = "".join(f"export {name}={shlex.quote(text)}\n" for name, text in values.items())
    text = f'cd "$HOME/runs/{run}/src"\n{exports}exec {shlex.join(command)}\n'
    around = 'trap : TERM INT\nbash "$1/cmd"\necho $? > "$1/rc.new"\nmv "$1/rc.new" "$1/rc"\n'
    return f"""{_PREFIX}set -e
if [ ! -d "$HOME/runs/{run}/src" ]; then say start "$worker" not-pushed; exit 1; fi
base="$HOME/.pod/{run}"; mkdir -p "$base"
exec 9>"$base/lock"
if ! flock -n 9; then
  say start "$worker" running "$(basename "$(readlink "$base/current")")"; exit 0
fi
attempt="$base/attempt-{number}"
if [ -e "$attempt/pid" ]; then say start "$worker" started "attempt-{number}"; exit 0; fi
mkdir -p "$attempt"
printf '%s' {shlex.quote(text)} > "$attempt/cmd"
printf '%s' {shlex.quote(around)} > "$attempt/around"
ln -sfn "attempt-{number}" "$base/current"
setsid bash "$attempt/around" "$attempt" > "$attempt/log" 2>&1 < /dev/null &
echo $! > "$attempt/pid"
say start "$worker" started "attempt-{number}"
"""


def status(run: str, lines: int = 40) -> str:
    """How the newest attempt stands; reports `status` and, line by line, `tail`."""
    return f"""{_PREFIX}{_HOLDERS}
base="$HOME/.pod/{run}"; at="$base/current"
if [ ! -d "$at" ]; then say status "$worker" none - - - "$(holders)"; exit 0; fi
state=ended; rc=$(cat "$at/rc" 2>/dev/null || echo -)
if ! flock -n "$base/lock" true; then state=running; fi
say status "$worker" $state "$(basename "$(readlink "$at")")" "$rc" \\
  "$(cat "$HOME/runs/{run}/commit" 2>/dev/null || echo -)" "$(holders)"
tail -n {lines} "$at/log" | while IFS= read -r line; do say tail "$worker" "$line"; done
"""


def stop(run: str, grace: int) -> str:
    """SIGTERM to the processes of the run, SIGKILL after `grace` seconds; reports `stop`.

    Only the recorded process group is signaled. libtpu's lock file is removed where nothing holds
    the chips any more.
    """
    return f"""{_PREFIX}{_HOLDERS}
base="$HOME/.pod/{run}"; at="$base/current"; how=idle
running() {{ ! flock -n "$base/lock" true; }}
if [ -d "$at" ] && running; then
  group=$(cat "$at/pid"); how=stopped
  kill -TERM -- "-$group" 2>/dev/null
  for second in $(seq {grace}); do running || break; sleep 1; done
  if running; then how=killed; kill -KILL -- "-$group" 2>/dev/null
    for tenth in $(seq 100); do running || break; sleep 0.1; done
    if running; then how=stuck; else echo 137 > "$at/rc"; fi
  fi
fi
held=$(holders)
[ -z "$held" ] && rm -f /tmp/libtpu_lockfile
say stop "$worker" $how "$(cat "$at/rc" 2>/dev/null || echo -)" "$held"
"""


def follow(run: str, lines: int) -> str:
    """The end of the log; not a report."""
    return f'tail -n {lines} "$HOME/.pod/{run}/current/log"'


def newest_checkpoint(workdir: str) -> str:
    """Reports `checkpoint`: the newest step that was committed to a folder of the worker."""
    quoted = shlex.quote(workdir)
    return f"""{_PREFIX}
cd "$HOME/runs" 2>/dev/null
newest=-1
for one in {quoted}/checkpoints/*; do
  name=$(basename "$one")
  case "$name" in (*[!0-9]*|'') continue;; esac
  [ "$name" -gt "$newest" ] && newest=$name
done
say checkpoint "$worker" "$newest"
"""

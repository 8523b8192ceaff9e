"""Plants every fault of the list in a copy of the tree and runs the tests that should notice it.

A fault is *noticed* if a test fails or hangs. In the end the tests that failed are run once without
any fault, where they must pass: a test that always fails would seem to notice everything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.fault import Fault, ListError

ROOT = Path(__file__).resolve().parents[2]
TIME_LIMIT_SECONDS = 600
PASSED, FAILED = 0, 1  # exit codes of pytest; all others mean that it could not run the tests
# A captured log may have lines that begin with ERROR, too.
FAILED_TEST = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", re.MULTILINE)
HANGS = "hangs"


@dataclass(frozen=True)
class Outcome:
    """What became of one fault."""

    fault: Fault
    noticed: bool
    by: str  # the first test that failed
    seconds: float


def run_faults(faults: Sequence[Fault], workers: int) -> list[Outcome]:
    """One outcome for each fault, in order; each worker has a copy of the tree.

    Raises:
      ListError: a fault does not fit the sources, or tests fail without any fault.
    """
    for fault in faults:
        fault.planted(ROOT)
        fault.check_tests(ROOT)
    with tempfile.TemporaryDirectory(prefix="podvision-mutants-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for worker in range(workers):
            copies.put(_copy_of_the_tree(Path(folder) / str(worker)))

        def in_a_copy(work):
            copy = copies.get()
            try:
                return work(copy)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(workers) as pool:
            outcomes = list(pool.map(in_a_copy, [_outcome(fault) for fault in faults]))
        in_a_copy(_passes(sorted({o.by for o in outcomes if o.noticed and o.by != HANGS})))
        return outcomes


def _passes(tests: Sequence[str]):
    """Raises ListError, in a copy, unless the tests pass without a fault."""

    def look(copy: Path) -> None:
        code, output = _pytest(copy, tests, 20 * TIME_LIMIT_SECONDS) if tests else (PASSED, "")
        if code != PASSED:
            raise ListError(f"tests that noticed a fault fail without it, too:\n{output[-3000:]}")

    return look


def _outcome(fault: Fault):
    """Plants the fault in a copy and takes it out again."""

    def plant(copy: Path) -> Outcome:
        path, start = copy / fault.file, time.monotonic()
        whole = path.read_text(encoding="utf-8")
        path.write_text(fault.planted(copy), encoding="utf-8")
        try:
            code, output = _pytest(copy, fault.tests.split(), TIME_LIMIT_SECONDS)
        finally:
            path.write_text(whole, encoding="utf-8")
        seconds = time.monotonic() - start
        if code is not None and code not in (PASSED, FAILED):
            raise ListError(f"{fault.name}: pytest could not run its tests:\n{output[-3000:]}")
        first = FAILED_TEST.search(output)
        by = HANGS if code is None else first.group(1) if first else ""
        outcome = Outcome(fault, code != PASSED, by, seconds)
        word = "noticed" if outcome.noticed else "SURVIVES"
        print(f"{word:9}{seconds:5.0f} s  {fault.name}  {by}", file=sys.stderr, flush=True)
        return outcome

    return plant


def _pytest(copy: Path, tests: Sequence[str], limit: float) -> tuple[int | None, str]:
    """Exit code (None: it hangs) and output of the tests, until the first that fails."""
    cache = Path(tempfile.gettempdir()) / f"podvision-mutants-{os.getuid()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "--tb=line", "-rfE", *tests],
        cwd=copy,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return None, output
    return process.returncode, output


def _copy_of_the_tree(target: Path) -> Path:
    """All files that git tracks or would track, as they are now; links stay links."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if not (ROOT / name).exists():
            continue  # deleted, but not committed yet
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target

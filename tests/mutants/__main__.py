"""`python -m tests.mutants [--only REGEX] [--workers N]`: which faults do the tests not notice?

Exit codes: 0 all are noticed but those that the list excuses; 1 some survive; 2 the list is wrong.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from tests.mutants.fault import ListError
from tests.mutants.faults import FAULTS
from tests.mutants.run import Outcome, run_faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="regex over names and files of the faults")
    parser.add_argument("--workers", type=int, default=2, help="copies of the tree at work")
    arguments = parser.parse_args()
    wanted = re.compile(arguments.only)
    faults = [f for f in FAULTS if wanted.search(f.name) or wanted.search(f.file)]
    try:
        outcomes = run_faults(faults, arguments.workers)
    except ListError as error:
        print(error, file=sys.stderr)
        return 2
    return report(outcomes)


def report(outcomes: Sequence[Outcome]) -> int:
    """Prints the table of the survivors and returns the exit code."""
    survivors = [outcome for outcome in outcomes if not outcome.noticed]
    for outcome in survivors:
        fault = outcome.fault
        print(f"survives   {fault.file}: {fault.name}\n           {fault.survives or fault.tests}")
    stale = [outcome for outcome in outcomes if outcome.noticed and outcome.fault.survives]
    for outcome in stale:
        print(f"noticed    {outcome.fault.name}: remove its excuse, {outcome.by} fails")
    noticed = len(outcomes) - len(survivors)
    print(f"{noticed} of {len(outcomes)} faults are noticed")
    unexcused = any(not outcome.fault.survives for outcome in survivors)
    return 1 if unexcused or stale else 0


if __name__ == "__main__":
    sys.exit(main())

"""Faults in what starts, stops and restarts runs on a slice."""

from tests.mutants.fault import Fault

ROOM, TESTS = "launch/pod", "tests/launch/pod"

FAULTS = (
    Fault(
        "a second start starts a second training",
        f"{ROOM}/scripts.py",
        "if ! flock -n 9; then\n",
        "if false; then\n",
        f"{TESTS}/verbs_test.py",
    ),
    Fault(
        "the shell around a run dies of its signals",
        f"{ROOM}/scripts.py",
        "around = 'trap : TERM INT\\n",
        "around = '\\n",
        f"{TESTS}/verbs_test.py",
    ),
    Fault(
        "a damaged archive is unpacked",
        f"{ROOM}/scripts.py",
        'if [ "$found" != {digest} ]; then',
        "if false; then",
        f"{TESTS}/verbs_test.py",
    ),
    Fault(
        "a refused run is started again",
        f"{ROOM}/verdicts.py",
        "if worker.code in REFUSALS:",
        "if worker.code in ():",
        f"{TESTS}/verdicts_test.py",
    ),
    Fault(
        "the worker that lost the others is blamed",
        f"{ROOM}/verdicts.py",
        "failed.sort(key=lambda worker: bool(_line(worker, LOST)))",
        "failed.sort(key=lambda worker: worker.number)",
        f"{TESTS}/verdicts_test.py",
    ),
    Fault(
        "crashes are counted in spite of progress",
        f"{ROOM}/babysit.py",
        "self.failures = 1 if newest > self.newest else self.failures + 1",
        "self.failures = self.failures + 1",
        f"{TESTS}/babysit_test.py",
    ),
    Fault(
        "a preempted slice is not deleted before its name is used again",
        f"{ROOM}/babysit.py",
        "        self.pod.slice.delete(self.pod.shell)\n        self.pod.create()",
        "        self.pod.create()",
        f"{TESTS}/babysit_test.py",
    ),
    Fault(
        "hosts that do not find each other train alone",
        "training/distributed.py",
        "if started != found:",
        "if started < found:",
        f"{TESTS}/verdicts_test.py",
    ),
)

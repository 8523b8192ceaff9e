"""What is waited for is said, again and again, and no more when it has come."""

from __future__ import annotations

import threading

from training import waiting
from training.waiting import said_while_waiting


class Lines:
    """Stands in for stderr; `third` is set with the third line."""

    def __init__(self):
        self.text, self.third = "", threading.Event()

    def write(self, text: str) -> None:
        self.text += text
        if self.text.count("\n") == 3:
            self.third.set()

    def flush(self) -> None:
        pass


def test_a_long_wait_is_said_until_it_is_over(monkeypatch):
    lines = Lines()
    monkeypatch.setattr(waiting, "SAY_SECONDS", 0.001)
    monkeypatch.setattr("sys.stderr", lines)
    with said_while_waiting("the other hosts", "start them"):
        assert lines.third.wait(20)
    said = lines.text
    assert said.startswith("podvision: waiting for the other hosts since 0 s; start them\n")
    assert not [t for t in threading.enumerate() if t.name == "waiting"]


def test_a_short_wait_says_nothing(capsys):
    with said_while_waiting("the other hosts", "start them"):
        pass
    assert capsys.readouterr().err == ""

"""What libraries say: held back, then in a file of the work folder, never on the terminal."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import tempfile
import threading
import warnings

import pytest
from etils import epath

from tests.conftest import REPOSITORY
from training import storage
from training.record import library_log

SPEAKERS = """
import logging, os, sys, threading, warnings
from training.record import library_log

def speak(when):
    logging.getLogger("absl").warning("absl %s", when)
    warnings.warn(f"a warning {when}")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start(); thread.join()
    os.write(2, f"native {when}\\n".encode())
    print(f"for the user {when}", file=sys.stderr)

with library_log.captured(debug=DEBUG):
    logging.getLogger("absl").warning("absl before")
    library_log.keep(sys.argv[1], 0)
    speak("during")
    ACTION
"""


def speaking(tmp_path, debug="False", action="pass"):
    code = SPEAKERS.replace("DEBUG", debug).replace("ACTION", action)
    return subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_terminal_has_what_is_for_the_user_and_the_file_all_the_rest(tmp_path):
    done = speaking(tmp_path)
    assert done.returncode == 0 and done.stderr == "for the user during\n"
    text = (tmp_path / "log.txt").read_text()
    for said in ("absl before", "absl during", "a warning during", "ZeroDivisionError"):
        assert said in text
    assert "native during" in text and "for the user" not in text
    assert text.index("absl before") < text.index("absl during")


def test_with_debug_all_is_on_the_terminal_and_no_file_is_made(tmp_path):
    done = speaking(tmp_path, debug="True")
    for said in ("absl before", "native during", "a warning during", "for the user during"):
        assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_of_a_crash_is_on_the_terminal(tmp_path):
    done = speaking(tmp_path, action="raise RuntimeError('a defect')")
    assert done.returncode == 1 and "RuntimeError: a defect" in done.stderr
    assert "absl" not in done.stderr


def test_a_refused_command_leaves_no_file_and_says_nothing_of_libraries(tmp_path, capsys):
    with library_log.captured(debug=False):
        logging.getLogger("absl").warning("a page of noise")
    assert "noise" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_crash_before_there_is_a_file_shows_what_was_held_back(capsys):
    with pytest.raises(ZeroDivisionError), library_log.captured(debug=False):
        logging.getLogger("absl").warning("the device is busy")
        raise ZeroDivisionError
    assert "the device is busy" in capsys.readouterr().err


def test_warnings_of_this_program_are_shown_and_logged(tmp_path, capfd):
    with library_log.captured(debug=False):
        library_log.keep(tmp_path, 3)
        logging.warning("the folder %s cannot be locked", "x")
    assert capfd.readouterr().err == "podvision: the folder x cannot be locked\n"
    assert "the folder x cannot be locked" in (tmp_path / "log-3.txt").read_text()


def test_everything_is_given_back(tmp_path):
    root, stream = logging.getLogger(), sys.stderr
    before = (root.level, list(root.handlers), threading.excepthook, sys.unraisablehook)
    shown = warnings.showwarning
    number = os.fstat(2).st_ino
    with library_log.captured(debug=False):
        library_log.keep(tmp_path, 0)
        assert os.fstat(2).st_ino != number
        with library_log.captured(debug=False):  # a command in a command
            pass
        assert os.fstat(2).st_ino != number
    assert before == (root.level, root.handlers, threading.excepthook, sys.unraisablehook)
    assert sys.stderr is stream and warnings.showwarning is shown
    assert os.fstat(2).st_ino == number


def test_in_a_bucket_the_log_is_written_whole_at_the_end(tmp_path, monkeypatch, capfd):
    sent = {}
    monkeypatch.setattr(storage, "as_path", lambda path: epath.Path(path))
    monkeypatch.setattr(storage, "replace_bytes", lambda path, data: sent.update({path: data}))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with library_log.captured(debug=False):
        library_log.keep("gs://bucket/run", 1)
        logging.getLogger("absl").warning("a page of noise")
        assert not sent
    ((path, data),) = sent.items()
    assert str(path) == "gs://bucket/run/log-1.txt" and b"a page of noise" in data
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr().err == ""


def test_a_log_that_cannot_be_sent_is_kept_and_named(tmp_path, monkeypatch, capfd):
    def refuse(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "as_path", lambda path: epath.Path(path))
    monkeypatch.setattr(storage, "replace_bytes", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with library_log.captured(debug=False):
        library_log.keep("gs://bucket/run", 0)
        logging.getLogger("absl").warning("a page of noise")
    (kept,) = tmp_path.iterdir()
    assert "a page of noise" in kept.read_text()
    assert f"look at {kept}" in capfd.readouterr().err


def test_each_stage_of_a_pipeline_has_its_own_file_and_all_is_given_back(tmp_path, capfd):
    with library_log.captured(debug=False):
        for stage in ("first", "second"):
            (tmp_path / stage).mkdir()
            library_log.keep(tmp_path / stage, 0)
            logging.getLogger("absl").warning("in the %s", stage)
    os.write(2, b"the terminal again\n")
    assert capfd.readouterr().err == "the terminal again\n"
    texts = [(tmp_path / stage / "log.txt").read_text() for stage in ("first", "second")]
    assert "in the first" in texts[0] and "in the second" in texts[1]
    assert "second" not in texts[0] and "first" not in texts[1]


def test_a_file_that_has_grown_too_large_keeps_its_newer_half_in_whole_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(library_log, "LARGEST_BYTES", 1000)
    path = tmp_path / "log.txt"
    lines = [f"line {n:04d}\n" for n in range(200)]
    path.write_text("".join(lines[:50]))
    file = os.open(path, os.O_RDWR | os.O_APPEND)
    library_log.cut(file)
    assert path.read_text() == "".join(lines[:50])  # 500 bytes are few
    os.write(file, "".join(lines[50:]).encode())
    library_log.cut(file)
    os.write(file, b"next\n")
    os.close(file)
    kept = path.read_text()
    assert len(kept) <= 505 and kept.endswith("".join(lines[-49:]) + "next\n")
    assert kept.startswith("line ")

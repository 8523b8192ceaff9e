"""`podvision prepare rtdetr`: arguments, exit codes, and what is left of a command that failed."""

from __future__ import annotations

import argparse

import pytest

from rtdetr.data.prepared import open_split
from rtdetr.prepare import add_arguments, run
from tests.rtdetr.data.trees import coco
from training.errors import ConfigError, DataFault, InputError
from training.folder_lock import LOCK, held


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(["--workers", "2", *words]))


def times(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_data_set_is_prepared_once_and_told(tmp_path, capsys):
    folder, output = coco(tmp_path / "coco"), tmp_path / "out"
    words = ["--input", str(folder), "--output", str(output)]
    assert command(*words) == 0
    printed = capsys.readouterr().out
    assert "1 image without object: kept" in printed and f"prepared: {output}" in printed
    before = times(output)
    with pytest.raises(InputError, match="holds a prepared data set already"):
        command(*words)
    assert times(output) == before


def test_check_tells_and_writes_nothing(tmp_path, capsys):
    folder = coco(tmp_path / "coco")
    before = sorted(tmp_path.rglob("*"))
    assert command("--input", str(folder), "--check") == 0
    assert "1 cat" in capsys.readouterr().out and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [["--check"], []])
def test_more_faults_than_allowed_end_with_exit_code_4_and_leave_nothing_that_opens(
    tmp_path, words
):
    folder, output = coco(tmp_path / "coco"), tmp_path / "out"
    (folder / "train2017" / "b.png").unlink()
    words = [*words, "--input", str(folder), "--output", str(output)]
    with pytest.raises(DataFault, match="1 missing image") as caught:
        command(*words)
    assert caught.value.exit_code == 4
    with pytest.raises(InputError, match="no prepared data set"):
        open_split(output, "train")
    if "--check" not in words:
        # The same folder serves when the fault is allowed.
        assert command(*words, "--max-bad-fraction", "0.5") == 0
        assert len(open_split(output, "train")) == 1


def test_two_commands_on_one_folder_do_not_write_at_once(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    with held(output), pytest.raises(InputError):
        command("--input", str(coco(tmp_path / "coco")), "--output", str(output))
    assert not (output / "dataset.json").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "--input DIR or --tfds NAME"),
        (["--input", "a", "--tfds", "bccd"], "--input DIR or --tfds NAME"),
        (["--input", "a"], "--output DIR, or --check"),
        (["--input", "a", "--check", "--eval-fraction", "1"], "--eval-fraction must be"),
        (["--input", "a", "--check", "--max-bad-fraction", "-1"], "--max-bad-fraction must be"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        command(*words)


def test_a_folder_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="the input no_such_folder does not exist"):
        command("--input", "no_such_folder", "--check")

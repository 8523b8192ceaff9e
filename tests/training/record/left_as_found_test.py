"""What an attempt to begin has made is removed; what was there, or what a run left, stays."""

from __future__ import annotations

import pytest

from training.errors import ConfigError
from training.record.left_as_found import left_as_found
from training.record.run_folder import held_run_folder


def paths(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(workdir):
    with pytest.raises(ConfigError), held_run_folder(workdir, main=True):
        assert (workdir / ".lock").exists()
        raise ConfigError("the data does not fit")


@pytest.mark.parametrize("name", ["run", "deep/er/run", "."])
def test_a_refused_run_leaves_no_lock_and_no_folder(tmp_path, name):
    refused(tmp_path / name)
    assert paths(tmp_path) == [] and tmp_path.exists()


def test_what_lies_in_the_folder_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    refused(tmp_path / "run")
    assert paths(tmp_path) == ["run", "run/notes.txt"]


def test_the_folder_of_a_run_keeps_its_lock(tmp_path):
    with held_run_folder(tmp_path / "run", main=True):
        (tmp_path / "run" / "config.json").write_text("{}")
    before = paths(tmp_path)
    assert before == ["run", "run/.lock", "run/config.json"]
    refused(tmp_path / "run")
    assert paths(tmp_path) == before


def test_an_empty_folder_that_was_there_stays(tmp_path):
    (tmp_path / "run").mkdir()
    with left_as_found(tmp_path / "run" / "stage"):
        (tmp_path / "run" / "stage").mkdir()
    assert paths(tmp_path) == ["run"]


def test_a_folder_that_was_never_made_is_no_fault(tmp_path):
    with left_as_found(tmp_path / "a" / "b"):
        pass
    assert paths(tmp_path) == []


def test_a_bucket_is_left_to_its_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with left_as_found("gs://bucket/run"):
        pass
    assert paths(tmp_path) == []

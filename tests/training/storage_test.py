"""What holds for a disk and a bucket alike, and the sentences when one of them fails."""

from __future__ import annotations

import ast
import errno
import os
import sys

import pytest

from tests.conftest import REPOSITORY
from training import storage
from training.errors import InputError

# Files of `training` that may use pathlib, and for what; no path of the user's goes through it.
PATHLIB = {
    "data_folder.py": "captures and sequences, which are read from a disk",
    "distributed.py": "device files of this machine",
    "record/profile.py": "what the profiler has written, on a disk of this machine",
    "registry.py": "recipes, which Python imports from a disk",
    "replay.py": "names of source files in a traceback",
    "torch_file.py": "weights of PyTorch, whose archives are read in parts",
    "video.py": "films, which another program writes",
    "weight_files.py": "weights of other programs, which are mapped into memory",
}


def test_a_file_is_replaced_whole_and_its_folder_made(place):
    path = place / "deep" / "facts.json"
    storage.replace_text(path, '{"a": "ä"}')
    storage.replace_text(path, '{"b": 1}')
    assert storage.read_json_object(path) == {"b": 1}
    assert [found.name for found in storage.list_folder(place / "deep")] == ["facts.json"]


def test_what_is_missing_is_an_empty_folder_and_no_file(place):
    assert storage.list_folder(place / "none") == []
    with pytest.raises(FileNotFoundError):
        storage.read_text(place / "none")
    storage.make_folder(place)
    assert storage.list_folder(place) == []


def test_a_list_is_never_remembered_from_before(place):
    storage.replace_text(place / "a", "")
    assert [path.name for path in storage.list_folder(place)] == ["a"]
    storage.replace_text(place / "b", "")
    assert [path.name for path in storage.list_folder(place)] == ["a", "b"]
    (place / "a").unlink()
    assert not (place / "a").exists()
    assert [path.name for path in storage.list_folder(place)] == ["b"]


def test_a_finished_file_is_moved_in_and_duplicated(place, tmp_path):
    (tmp_path / "finished").write_bytes(b"records")
    storage.make_folder(place)
    storage.move_in(tmp_path / "finished", place / "shard-1")
    storage.duplicate(place / "shard-1", place / "shard-0")
    assert not (tmp_path / "finished").exists()
    assert (place / "shard-0").read_bytes() == (place / "shard-1").read_bytes() == b"records"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "facts.json"
    storage.replace_text(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused = pytest.raises(InputError, match=r"can take no more.*try again$")
    with refused, storage.explained(tmp_path, "try again"):
        storage.replace_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["facts.json"]


def test_other_errors_pass_unexplained(tmp_path):
    with pytest.raises(FileNotFoundError), storage.explained(tmp_path, "try again"):
        storage.read_text(tmp_path / "none")


def test_damaged_json_is_named(place):
    for text in ("{", "[1]"):
        storage.replace_text(place / "a.json", text)
        with pytest.raises(InputError, match=r"a\.json"):
            storage.read_json_object(place / "a.json")


@pytest.mark.parametrize("address", ["s3://bucket/run", "http://host/run", "gs://", "gs:///"])
def test_an_address_of_something_else_is_refused(address):
    with pytest.raises(InputError, match="neither a path nor gs://"):
        storage.as_path(address)


def test_a_bucket_without_the_extra_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'podvision\[gcs\]'"):
        storage.as_path("gs://bucket/run")


def test_a_bucket_that_does_not_answer_is_a_sentence(bucket, monkeypatch):
    import aiohttp

    monkeypatch.setattr(storage, "_silent", False)

    sentence = rf"^{bucket} cannot be reached \(no route\).*permissions.*then wait$"
    with pytest.raises(InputError, match=sentence), storage.explained(bucket, "wait"):
        raise aiohttp.ClientError("no route\nmore")
    assert storage.is_silent()


def test_paths_are_absolute_in_both_places(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("run") == storage.as_path(tmp_path / "run")
    assert storage.absolute(place) == place


def test_the_core_opens_no_path_of_the_users_with_pathlib():
    found = set()
    for path in sorted((REPOSITORY / "training").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = isinstance(node, ast.Import) and [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                imported = [node.module]
            if "pathlib" in (imported or []):
                found.add(str(path.relative_to(REPOSITORY / "training")))
    assert found == set(PATHLIB)

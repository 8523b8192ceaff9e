"""Every path of an input folder is met once, and nothing that could block is opened."""

from __future__ import annotations

import os
import socket
import time

from jepa3d.config import PrepareSettings
from jepa3d.data.index import read_rows
from jepa3d.data.prepare import prepare
from jepa3d.data.walk import walk
from tests.jepa3d.data.oct_files import make_dataset, random_pixels, save

SMALL = PrepareSettings(shape=(8, 32, 32), patch=(4, 16, 16), workers=0)


def named(found) -> dict[str, str]:
    return {entry.path: entry.detail for entry in found.named}


def test_a_linked_folder_is_followed_once_and_a_cycle_ends(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "a.dcm").write_text("a")
    root = tmp_path / "root"
    root.mkdir()
    (root / "first").symlink_to(elsewhere)
    (root / "second").symlink_to(elsewhere)
    (elsewhere / "deep" / "up").symlink_to(elsewhere)
    (root / "self").symlink_to(root)
    found = walk(root, tmp_path / "out")
    assert found.files == ["first/deep/a.dcm"]
    assert "the folder first" in named(found)["second"]
    assert "the folder ." in named(found)["self"]
    assert "first/deep/up" in named(found)


def test_a_link_never_hides_the_place_of_real_files(tmp_path):
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "a.dcm").write_text("a")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert walk(tmp_path, tmp_path / "out").files == ["z/a.dcm"]


def test_the_output_is_not_looked_into_by_way_of_a_link_either(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.dcm").write_text("a")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "out")
    assert walk(tmp_path / "root", tmp_path / "out").files == []
    assert walk(tmp_path, tmp_path / "out").files == []


def test_what_is_no_regular_file_is_named_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.dcm")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket.dcm")
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    (tmp_path / "lost.dcm").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".hidden.dcm").write_text("x")
    (tmp_path / ".folder").mkdir()
    save(make_dataset(random_pixels((6, 192, 48))), tmp_path, "sound.dcm")
    start = time.monotonic()
    account = prepare(tmp_path, tmp_path / "out", SMALL)
    listener.close()
    assert time.monotonic() - start < 20 and account.volumes == 1
    rows = {row["path"]: row for row in read_rows(tmp_path / "out" / "index.jsonl")}
    details = {path: row["detail"] for path, row in rows.items() if row["status"] == "skip"}
    assert details == {
        "pipe.dcm": "a named pipe, not a file",
        "pipe.png": "a named pipe, not a file",
        "pipe": "a named pipe, not a file",
        "socket.dcm": "a socket, not a file",
        "zero.npy": "a device, not a file",
        "lost.dcm": "a link to nothing",
        ".hidden.dcm": "a hidden file",
        ".folder": "a hidden folder",
    }


def test_a_folder_without_access_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert "cannot be entered" in named(walk(tmp_path, tmp_path / "out"))["closed"]

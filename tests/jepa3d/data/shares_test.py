"""Preparation in shares, as several hosts do it: the same bytes as one run, and nobody collides."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from etils import epath

from jepa3d.config import PrepareSettings
from jepa3d.data import prepare as prepare_module
from jepa3d.data.prepare import prepare
from jepa3d.data.shares import FOLDER, Share
from launch.cli import main
from tests.jepa3d.data.oct_files import make_dataset, random_pixels, save
from training import folder_lock
from training.errors import ConfigError, InputError

SETTINGS = PrepareSettings(
    shape=(8, 32, 32), patch=(4, 16, 16), workers=0, records_per_shard=2, eval_fraction=0.3
)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != folder_lock.LOCK
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Volumes, a duplicate and a scan under two persons whose copies fall into other shares."""
    folder = tmp_path_factory.mktemp("tree")
    for number in range(7):
        pixels = random_pixels(seed=number)
        dataset = make_dataset(pixels, participant=f"p{number}", uid=f"2.25.{number}")
        save(dataset, folder, f"{number}.dcm")
    shutil.copy(folder / "1.dcm", folder / "91.dcm")
    shared = make_dataset(random_pixels(seed=2), participant="other", uid="2.25.2")
    save(shared, folder, "92.dcm")
    (folder / "93.dcm").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("a text")
    return folder


@pytest.fixture(scope="module")
def alone(tree, tmp_path_factory) -> Path:
    """What one host makes of it."""
    folder = tmp_path_factory.mktemp("alone")
    prepare(tree, folder, SETTINGS)
    return folder


def forbid_conversion(monkeypatch) -> None:
    def run_all(tasks, workers):
        assert not tasks
        return iter(())

    monkeypatch.setattr(prepare_module, "run_all", run_all)


def test_shares_put_together_have_the_bytes_of_one_run(tree, alone, tmp_path, monkeypatch):
    counts = [
        prepare(tree, tmp_path, SETTINGS, share=Share(number, 3)).volumes for number in (3, 1, 2)
    ]
    assert sum(counts) == 9
    forbid_conversion(monkeypatch)
    account = prepare(tree, tmp_path, SETTINGS)
    assert account.volumes == 6
    assert contents(tmp_path) == contents(alone)


def test_what_no_share_has_or_has_as_it_was_is_converted(tree, alone, tmp_path):
    scans = shutil.copytree(tree, tmp_path / "scans")
    out = tmp_path / "out"
    # The inputs change after the share was made: its conversion no longer holds.
    save(make_dataset(random_pixels(seed=50), participant="p2", uid="2.25.50"), scans, "2.dcm")
    prepare(scans, out, SETTINGS, share=Share(1, 2))
    shutil.copy2(tree / "2.dcm", scans / "2.dcm")
    prepare(scans, out, SETTINGS)
    assert contents(out) == contents(alone)


def test_an_interrupted_share_goes_on_where_it_was(tree, tmp_path, monkeypatch):
    def interrupt(done, total, row):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tree, tmp_path, SETTINGS, interrupt, Share(1, 2))
    left = []
    prepare(tree, tmp_path, SETTINGS, lambda done, total, row: left.append(total), Share(1, 2))
    assert left[-1] == 2  # of five
    forbid_conversion(monkeypatch)
    prepare(tree, tmp_path, SETTINGS, share=Share(1, 2))


def test_a_share_and_the_whole_are_made_by_one_run_at_a_time(tree, tmp_path):
    share = Share(1, 2)
    prepare(tree, tmp_path, SETTINGS, share=share)
    with folder_lock.held(share.folder(epath.Path(tmp_path))):
        with pytest.raises(InputError, match=r"another run is at work in .*1-of-2"):
            prepare(tree, tmp_path, SETTINGS, share=share)
        with pytest.raises(InputError, match=r"another run is at work in .*1-of-2"):
            prepare(tree, tmp_path, SETTINGS)
    assert (tmp_path / FOLDER).exists()


def test_shares_of_other_settings_are_refused(tree, tmp_path):
    prepare(tree, tmp_path, SETTINGS, share=Share(1, 2))
    with pytest.raises(InputError, match="other settings"):
        prepare(tree, tmp_path, replace(SETTINGS, shape=(8, 32, 64)), share=Share(2, 2))


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="such as 2/4"):
        Share.parse(text)


def test_the_command_says_what_comes_next(tree, tmp_path, capsys):
    words = ["prepare", "jepa3d", "--input", str(tree), "--output", str(tmp_path), "--workers=0"]
    words += ["--shape=8,32,32", "--share"]
    assert main([*words, "1/9"]) == 0
    assert "give the command without --share" in capsys.readouterr().out
    assert main([*words, "9"]) == 2

"""`podvision prepare jepa3d`: arguments, output and exit codes."""

from __future__ import annotations

import argparse

import pytest

from jepa3d.prepare import add_arguments, run, settings_from
from jepa3d.synthetic import write_tree
from training.errors import ConfigError, DataFault


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_arguments_become_settings():
    settings = settings_from(
        parse("--input", "a", "--output", "b", "--shape", "16,64,64", "--mode", "resize")
    )
    assert settings.shape == (16, 64, 64) and settings.mode == "resize"
    assert settings.image_spacing_mm is None


def test_a_triple_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="--shape is '16,64'"):
        settings_from(parse("--input", "a", "--output", "b", "--shape", "16,64"))


def test_command_prints_the_account_and_keeps_the_records_below_the_floor(tmp_path, capsys):
    tree = write_tree(tmp_path / "tree", participants=4)
    words = ["--input", str(tree), "--output", str(tmp_path / "out"), "--workers", "0"]
    words += ["--shape", "8,32,32"]
    assert run(parse(*words)) == 0
    printed = capsys.readouterr()
    assert "8 volumes" in printed.out and "scan_pattern" in printed.err
    with pytest.raises(DataFault, match="zeiss_cirrus 67%") as caught:
        run(parse(*words, "--minimum-ok-fraction", "0.9"))
    assert caught.value.exit_code == 4
    assert (tmp_path / "out" / "index.jsonl").exists()

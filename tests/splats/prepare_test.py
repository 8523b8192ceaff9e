"""`podvision prepare splats`: the table says what is there, and the cache is filled."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from splats import prepare as command
from training.errors import ConfigError


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


def test_the_table_reports_views_split_and_what_is_missing(scene_copy, tmp_path, capsys):
    (scene_copy / "images" / "0004.png").unlink()
    cache = tmp_path / "cache"
    code = _run("--input", str(scene_copy), "--output", str(cache), "--factor", "2")
    text = capsys.readouterr().out
    assert code == 0 and len(list(cache.iterdir())) == 8
    for part in ("9 listed, 8 with an image", "12 x 9", "1: 0004.png", "PINHOLE 24x18: 9 views"):
        assert part in text
    assert "7 train, 1 test (every_k)" in text
    rows = text.strip().splitlines()
    assert len({row.index(row.split("  ", 1)[1].strip()) for row in rows}) == 1


def test_real_fox_is_described(data_root, capsys):
    folder = data_root / "splats" / "fox_tiny"
    assert _run("--input", str(folder), "--split", "fraction", "--seed", "3") == 0
    text = capsys.readouterr().out
    assert "20 train, 5 test (fraction)" in text and "2,000" in text


def test_a_scene_without_points_names_the_setting_that_it_needs(data_root, capsys):
    assert _run("--input", str(data_root / "splats" / "lego_mini")) == 0
    assert "train with --config.model.initialization=random" in capsys.readouterr().out


def test_bad_splits_are_config_errors(scene_folder):
    with pytest.raises(ConfigError, match=r"split\.every"):
        _run("--input", str(scene_folder), "--every", "1")


def test_adding_arguments_imports_nothing_heavy():
    script = (
        "import sys, argparse, splats.prepare as c\n"
        "c.add_arguments(argparse.ArgumentParser())\n"
        "print([m for m in ('numpy', 'scipy', 'PIL', 'jax') if m in sys.modules])"
    )
    command_line = [sys.executable, "-c", script]
    assert subprocess.check_output(command_line, text=True).strip() == "[]"

"""Splits: reproducible, disjoint, never empty, and kept by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splats.data.splits import Split, SplitConfig, make_split
from training.errors import ConfigError
from training.typed import build

NAMES = tuple(f"{i:03d}.jpg" for i in range(20))


def test_every_eighth_in_sorted_order_is_held_out():
    split = make_split(tuple(reversed(NAMES)), SplitConfig(mode="every_k"))
    assert split.test == (NAMES[0], NAMES[8], NAMES[16])


@given(st.integers(2, 60), st.floats(0.05, 0.95), st.integers(0, 9))
def test_fractions_partition_and_repeat_by_seed(count, fraction, seed):
    names = [f"{i}" for i in range(count)]
    config = SplitConfig(mode="fraction", fraction=fraction, seed=seed)
    if round(fraction * count) in (0, count):
        with pytest.raises(ConfigError):
            make_split(names, config)
        return
    split = make_split(names, config)
    assert sorted(split.train + split.test) == sorted(names)
    assert len(split.train) == round(fraction * count)
    assert make_split(names, config) == split


def test_a_split_survives_json_and_is_reused():
    split = make_split(NAMES, SplitConfig(mode="fraction", seed=4))
    again = Split.from_dict(json.loads(json.dumps(split.to_dict())))
    assert again == split and make_split(NAMES, again) == split
    with pytest.raises(ConfigError, match="scene lacks"):
        make_split(NAMES[:5], again)


def test_lists_of_the_data_set_win_in_auto_mode_only():
    lists = {"train": NAMES[:15], "val": NAMES[15:18], "test": NAMES[18:]}
    assert make_split(NAMES, SplitConfig(), lists).test == NAMES[18:]
    assert make_split(NAMES, SplitConfig(mode="every_k"), lists).mode == "every_k"
    without_test = {"train": NAMES[:15], "val": NAMES[15:]}
    assert make_split(NAMES, SplitConfig(), without_test).test == NAMES[15:]


def test_list_files_in_both_forms(tmp_path):
    path = tmp_path / "split"
    config = SplitConfig(mode="file", path=str(path))
    path.write_text("003.jpg\n\n007.jpg\n")
    split = make_split(NAMES, config)
    assert split.test == ("003.jpg", "007.jpg") and len(split.train) == 18
    path.write_text(json.dumps({"train": ["001.jpg"], "test": ["002.jpg", "gone.jpg"]}))
    assert make_split(NAMES, config, absent=("gone.jpg",)).test == ("002.jpg",)
    with pytest.raises(ConfigError, match=r"gone\.jpg"):
        make_split(NAMES, config)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"train": ["001.jpg"], "test": ["001.jpg"]}', "are in the training and in the test"),
        ('{"train": ["001.jpg"], "test": []}', "no test view"),
        ('{"train": [], "test": ["001.jpg"]}', "no training view"),
        ('{"train": ["001.jpg", "001.jpg"], "test": ["002.jpg"]}', "twice"),
        ('{"train": 3, "test": []}', "needs the name lists"),
        ("{", "not valid JSON"),
        ("\n".join(NAMES), "no training view"),
    ],
)
def test_bad_lists_are_config_errors(tmp_path, content, problem):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=problem):
        make_split(NAMES, SplitConfig(mode="file", path=str(path)))


@pytest.mark.parametrize(
    "settings",
    [{"mode": "random"}, {"every": 1}, {"fraction": 1.0}, {"mode": "file"}],
)
def test_bad_settings_are_config_errors(settings):
    with pytest.raises(ConfigError, match=r"split\."):
        build(SplitConfig, settings, "split")

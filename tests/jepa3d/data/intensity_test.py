"""Stored words to bytes, and participants to splits, as plain functions."""

from __future__ import annotations

import numpy as np
import pytest

from jepa3d.data.intensity import to_uint8
from jepa3d.data.splits import assign_splits


@pytest.mark.parametrize("factor", [256, 257])
def test_widened_words_give_their_bytes_back_whatever_range_they_use(factor):
    words = np.random.default_rng(0).integers(50, 100, (3, 8, 8)).astype(np.uint8)
    found, rule = to_uint8(words.astype(np.uint16) * factor)
    assert rule == "widened_8_bit"
    np.testing.assert_array_equal(found, words)


def test_earlier_split_of_a_person_wins_over_all_else():
    people = {"a": True, "b": True, "c": True}
    earlier = {"a": "eval", "b": "train"}
    recommended = {"a": "train", "c": "test"}
    splits = assign_splits(people, recommended, earlier, eval_fraction=1.0, seed=0)
    assert splits == {"a": "eval", "b": "train", "c": "test"}

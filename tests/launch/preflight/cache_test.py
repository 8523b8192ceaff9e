"""Kept verdicts: found again for the same program only, and never trusted when damaged."""

from __future__ import annotations

import pytest

from launch.preflight import cache

VERSIONS = {"jax": "1", "libtpu": "2"}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PODVISION_CACHE", str(tmp_path))


def test_a_verdict_is_found_again():
    assert cache.read("key") == (None, None)
    assert cache.write("key", {"chip_gib": 1.5}) is None
    assert cache.read("key") == ({"chip_gib": 1.5}, None)
    assert [path.name for path in cache.folder().iterdir()] == ["key.json"]


def test_program_slice_and_versions_decide():
    key = cache.program_key("text", "v4-8", VERSIONS)
    assert key == cache.program_key("text", "v4-8", dict(reversed(VERSIONS.items())))
    others = [
        cache.program_key("texts", "v4-8", VERSIONS),
        cache.program_key("text", "v4-16", VERSIONS),
        cache.program_key("text", "v4-8", VERSIONS | {"libtpu": "3"}),
    ]
    assert len({key, *others}) == 4


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"key": "key"}', '{"key": 1, "figures": {}}'])
def test_a_damaged_verdict_is_passed_over_with_a_sentence(content):
    cache.write("key", {})
    (cache.folder() / "key.json").write_text(content)
    figures, sentence = cache.read("key")
    assert figures is None and sentence is not None and "was not used" in sentence


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PODVISION_CACHE", str(tmp_path / "file"))
    sentence = cache.write("key", {})
    assert sentence is not None and "could not be kept" in sentence

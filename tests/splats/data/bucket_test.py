"""The cache of prepared images in a bucket."""

from __future__ import annotations

import numpy as np

from splats.data import preparation
from splats.data.scene import load_scene
from splats.synthetic import SyntheticConfig, write_scene
from training import storage


def test_a_cache_is_filled_once_and_gives_the_same_images(place, tmp_path, monkeypatch):
    size = SyntheticConfig(views=4, width=24, height=18, points=50, samples=1)
    folder = write_scene(tmp_path / "scene", size)
    plain = load_scene(folder, factor=2)
    load_scene(folder, factor=2, cache=place)
    assert len(storage.list_folder(place)) == len(plain.names)

    def work(*_):
        raise AssertionError("the cache was not used")

    monkeypatch.setattr(preparation.Preparation, "_work", work)
    cached = load_scene(folder, factor=2, cache=place)
    np.testing.assert_array_equal(cached.images, plain.images)
    assert cached.fingerprint == plain.fingerprint

"""Captures that can be read and still promise little: each is told in a sentence, or refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from splats.data import load_scene
from splats.data.colmap import find_model, read_model, write_model
from splats.data.doubts import of_count, of_parallax
from training.errors import ConfigError, InputError


@pytest.fixture
def own_scene(scene_folder, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(scene_folder, tmp_path / "scene")


def _write_masks(folder, names):
    folder.mkdir()
    for name in names:
        mask = np.full((18, 24), 255, np.uint8)
        mask[:2] = 0
        Image.fromarray(mask).save(folder / name)


def _notes(folder, **options):
    return "\n".join(load_scene(folder, **options).report.notes)


def test_masks_that_belong_to_no_image_are_refused_with_the_first_name(own_scene):
    _write_masks(own_scene / "masks", ["mask_0001.png", "mask_0002.png"])
    expected = r"None of the 2 masks .* \(first: mask_0001.png; expected .*: 0001.png\)"
    with pytest.raises(InputError, match=expected):
        load_scene(own_scene)


def test_masks_of_some_images_are_counted_and_those_of_none_named(own_scene):
    _write_masks(own_scene / "masks", ["0001.png", "0002.png", "9999.png"])
    notes = _notes(own_scene)
    assert "1 masks in masks/ belong to no image and are not used (first: 9999.png)" in notes
    assert "only 2 of 9 images have a mask in masks/ (first without: 0003.png)" in notes


def test_masks_of_all_images_raise_no_doubt(own_scene):
    names = [path.name for path in (own_scene / "images").iterdir()]
    _write_masks(own_scene / "masks", names)
    assert "mask" not in _notes(own_scene)


def test_of_several_models_the_largest_is_taken_and_the_others_are_named(own_scene):
    whole = read_model(own_scene / "sparse" / "0")
    numbers = sorted(whole.images)[:3]
    part = replace(whole, images={number: whole.images[number] for number in numbers})
    shutil.move(own_scene / "sparse" / "0", own_scene / "sparse" / "1")
    for binary in (True, False):
        write_model(own_scene / "sparse" / "0", part, binary=binary)
        assert find_model(own_scene) == own_scene / "sparse" / "1"
        scene = load_scene(own_scene)
        assert len(scene.names) == 9
        assert "model 1 with 9 images is used, not 0 with 3" in "\n".join(scene.report.notes)
        shutil.rmtree(own_scene / "sparse" / "0")


def test_another_model_can_be_chosen_and_must_be_there(own_scene):
    whole = read_model(own_scene / "sparse" / "0")
    write_model(
        own_scene / "sparse" / "1", replace(whole, images=dict([*whole.images.items()][:3]))
    )
    chosen = load_scene(own_scene, sparse="sparse/1")
    assert len(chosen.names) == 3
    assert "model 1 with 3 images is used, not 0 with 9" in "\n".join(chosen.report.notes)
    with pytest.raises(InputError, match=r"sparse/2 holds no COLMAP model .*config\.scene\.sparse"):
        load_scene(own_scene, sparse="sparse/2")
    with pytest.raises(ConfigError, match="a COLMAP model, and kind is 'blender'"):
        load_scene(own_scene, sparse="sparse/1", kind="blender")


def _cameras(centers):
    matrices = np.tile(np.eye(4), (len(centers), 1, 1))
    matrices[:, :3, 3] = -np.asarray(centers)
    return matrices


@pytest.mark.parametrize("spread, doubted", [(0.0, True), (0.0199, True), (0.0201, False)])
def test_cameras_closer_than_two_percent_of_the_distance_lack_parallax(spread, doubted):
    centers = np.array([[-spread / 2, 0, 0], [spread / 2, 0, 0]]) * 7.0
    points = np.array([[0, 0, 7.0], [0, 7.0, 0], [7.0, 0, 0]])
    assert bool(of_parallax(_cameras(centers), points)) == doubted


def test_without_points_only_one_place_lacks_parallax():
    nowhere = np.zeros((0, 3))
    assert "at one place" in of_parallax(_cameras(np.ones((4, 3))), nowhere)[0]
    assert not of_parallax(_cameras([[0, 0, 0], [1e-3, 0, 0]]), nowhere)


def test_a_turning_camera_stands_at_one_place_although_its_centers_are_rounded():
    center, matrices = np.array([3.1, -2.7, 1.3]), _cameras(np.zeros((6, 3)))
    for matrix, angle in zip(matrices, np.linspace(0, 3, 6), strict=True):
        cosine, sine = np.cos(angle), np.sin(angle)
        matrix[:3, :3] = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
        matrix[:3, 3] = -matrix[:3, :3] @ center
    matrices = matrices.astype(np.float32).astype(np.float64)
    assert "at one place" in of_parallax(matrices, np.zeros((0, 3)))[0]


def test_few_views_are_told():
    assert "only 23 views" in of_count(23)[0]
    assert not of_count(30)


def test_missing_images_of_a_nerfstudio_scene_are_looked_for_in_its_own_description(tmp_path):
    frame = {"file_path": "images/frame_1.png", "transform_matrix": np.eye(4).tolist()}
    content = {"w": 8, "h": 6, "fl_x": 8.0, "fl_y": 8.0, "cx": 4.0, "cy": 3.0, "frames": [frame]}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="correct file_path") as refused:
        load_scene(tmp_path)
    assert "'images' folder name" not in str(refused.value)

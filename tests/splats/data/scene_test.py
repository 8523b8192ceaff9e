"""Loading whole scenes: arrays, odd images, caches, masks, real data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from splats.data import SplitConfig, load_scene
from splats.data.background import WHITE
from splats.data.camera_models import Camera
from splats.data.colmap import read_model, write_model
from splats.data.colmap_model import ColmapPoints
from splats.data.normalization import transform_points
from splats.synthetic import render_view
from training.errors import ConfigError, InputError


def _edit_model(folder, **changes):
    model = read_model(folder / "sparse" / "0")
    write_model(folder / "sparse" / "0", replace(model, **changes))


def _project(scene, view, points):
    matrix = scene.world_to_camera[view]
    camera = points @ matrix[:3, :3].T + matrix[:3, 3]
    pixels = camera @ scene.intrinsics[view].T
    return pixels[:, :2] / pixels[:, 2:]


def test_arrays_have_the_documented_shapes_and_types(scene_folder):
    scene = load_scene(scene_folder)
    expected = {
        "images": ((9, 18, 24, 3), np.uint8),
        "sizes": ((9, 2), np.int32),
        "world_to_camera": ((9, 4, 4), np.float32),
        "intrinsics": ((9, 3, 3), np.float32),
        "points": ((100, 3), np.float32),
        "point_colors": ((100, 3), np.uint8),
        "normalization": ((4, 4), np.float64),
        "test": ((2,), np.int32),
        "train": ((7,), np.int32),
    }
    for name, (shape, dtype) in expected.items():
        array = getattr(scene, name)
        assert (array.shape, array.dtype) == (shape, dtype), name
    assert scene.valid is None and scene.names == tuple(sorted(scene.names))
    assert scene.split.test == ("0001.png", "0009.png")


def test_normalizing_moves_no_pixel(scene_folder):
    scene = load_scene(scene_folder)
    raw = load_scene(scene_folder, normalize=False)
    for view in range(9):
        np.testing.assert_allclose(
            _project(scene, view, scene.points), _project(raw, view, raw.points), atol=2e-3
        )
    back = transform_points(np.linalg.inv(scene.normalization), scene.points)
    np.testing.assert_allclose(back, raw.points, atol=1e-5)


def test_points_project_onto_pixels_of_their_color(tmp_path):
    """Pose, axes, principal point and pixel centers together, on points without noise."""
    from splats.synthetic import SyntheticConfig, write_scene

    config = SyntheticConfig(views=3, width=200, height=150, points=3000, samples=1, point_noise=0)
    scene = load_scene(write_scene(tmp_path, config))
    pixels = _project(scene, 2, scene.points)
    inside = (pixels > 0).all(axis=1) & (pixels < [200, 150]).all(axis=1)
    columns, rows = pixels[inside].astype(int).T
    ground = np.arange(len(scene.points))[inside] < 1500
    seen = scene.images[2][rows, columns].astype(int) - scene.point_colors[inside]
    assert np.median(np.abs(seen[ground])) <= 6
    shuffled = scene.images[2][rows[::-1], columns[::-1]].astype(int) - scene.point_colors[inside]
    assert np.median(np.abs(shuffled[ground])) > 20


def test_the_fingerprint_follows_pixels_split_and_poses(scene_copy):
    first = load_scene(scene_copy).fingerprint
    assert load_scene(scene_copy).fingerprint == first
    assert load_scene(scene_copy, split=SplitConfig(every=4)).fingerprint != first
    assert load_scene(scene_copy, normalize=False).fingerprint != first
    image = np.array(Image.open(scene_copy / "images" / "0003.png"))
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(scene_copy / "images" / "0003.png")
    assert load_scene(scene_copy).fingerprint != first


def test_missing_images_are_reported_and_unlisted_ones_too(scene_copy):
    (scene_copy / "images" / "0002.png").unlink()
    Image.new("RGB", (24, 18)).save(scene_copy / "images" / "extra.png")
    scene = load_scene(scene_copy)
    assert scene.report.missing == ("0002.png",) and scene.report.ignored == ("extra.png",)
    assert scene.report.listed == 9 and len(scene.names) == len(scene.images) == 8


def test_a_wrong_image_folder_name_is_one_sentence(scene_folder):
    with pytest.raises(InputError, match="'pictures'"):
        load_scene(scene_folder, images="pictures")
    with pytest.raises(InputError, match="not a folder"):
        load_scene(scene_folder / "nowhere")
    with pytest.raises(InputError, match="no COLMAP model"):
        load_scene(scene_folder / "images")
    with pytest.raises(ConfigError, match="factor is 0"):
        load_scene(scene_folder, factor=0)


def test_mixed_sizes_are_padded_and_masked(scene_copy):
    model = read_model(scene_copy / "sparse" / "0")
    wide = Camera("PINHOLE", 30, 12, (25.0, 26.0, 15.0, 6.0))
    images = {**model.images, 4: replace(model.images[4], camera_id=2)}
    _edit_model(scene_copy, cameras={**model.cameras, 2: wide}, images=images)
    Image.new("RGB", (30, 12), "red").save(scene_copy / "images" / "0004.png")
    scene = load_scene(scene_copy)
    assert scene.images.shape == (9, 18, 30, 3)
    assert tuple(scene.sizes[3]) == (30, 12) and scene.view(3).shape == (12, 30, 3)
    assert scene.valid is not None
    np.testing.assert_array_equal(scene.valid.sum(axis=(1, 2)), np.prod(scene.sizes, axis=1))
    assert (scene.images[~scene.valid] == 0).all()
    np.testing.assert_allclose(scene.intrinsics[3, 0], [25, 0, 15])


def test_intrinsics_follow_the_actual_size_of_each_axis(scene_copy):
    for path in (scene_copy / "images").iterdir():
        Image.open(path).resize((7, 6)).save(path)
    full, small = load_scene(scene_copy), read_model(scene_copy / "sparse" / "0").cameras[1]
    fx, fy, cx, cy = small.pinhole
    expected = [[fx * 7 / 24, 0, cx * 7 / 24], [0, fy / 3, cy / 3], [0, 0, 1]]
    np.testing.assert_allclose(full.intrinsics[0], expected, rtol=1e-6)


def test_factor_prefers_an_existing_folder_and_makes_what_is_missing(scene_copy):
    (scene_copy / "images_2").mkdir()
    Image.new("RGB", (12, 9), "blue").save(scene_copy / "images_2" / "0005.png")
    scene = load_scene(scene_copy, factor=2)
    assert scene.images.shape == (9, 9, 12, 3)
    assert (scene.images[4] == [0, 0, 255]).all()
    full = load_scene(scene_copy)
    boxes = full.images.reshape(9, 9, 2, 12, 2, 3).mean(axis=(2, 4))
    others = np.arange(9) != 4
    assert np.abs(scene.images[others] - boxes[others]).mean() < 6
    np.testing.assert_allclose(scene.intrinsics[:, :2] * 2, full.intrinsics[:, :2], rtol=1e-6)


def test_the_cache_is_used_and_noticed_when_stale(scene_copy, tmp_path):
    cache = tmp_path / "cache"
    model = read_model(scene_copy / "sparse" / "0")
    fx, fy, cx, cy = model.cameras[1].pinhole
    lens = Camera("OPENCV", 24, 18, (fx, fy, cx, cy, -0.1, 0.0, 0.0, 0.0))
    _edit_model(scene_copy, cameras={1: lens})
    direct = load_scene(scene_copy)
    first = load_scene(scene_copy, cache=cache)
    entries = sorted(cache.iterdir())
    assert len(entries) == 9 and direct.fingerprint == first.fingerprint
    stamps = [path.stat().st_mtime_ns for path in entries]
    assert load_scene(scene_copy, cache=cache).fingerprint == first.fingerprint
    assert [path.stat().st_mtime_ns for path in entries] == stamps
    Image.new("RGB", (24, 18), "green").save(scene_copy / "images" / "0001.png")
    changed = load_scene(scene_copy, cache=cache)
    assert (changed.images[0] == [0, 128, 0]).all() and len(list(cache.iterdir())) == 10
    assert load_scene(scene_copy, cache=cache, factor=2).images.shape[2] == round(
        changed.images.shape[2] / 2
    )


def test_damaged_and_unwritable_caches_are_one_sentence(scene_copy, tmp_path):
    cache = tmp_path / "cache"
    load_scene(scene_copy, cache=cache)
    entry = next(iter(cache.iterdir()))
    Image.new("RGB", (24, 18)).save(entry)
    with pytest.raises(InputError, match="delete it"):
        load_scene(scene_copy, cache=cache)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        load_scene(scene_copy, cache=tmp_path / "file" / "cache")


def test_masks_and_alpha_mark_pixels_that_do_not_count(scene_copy):
    (scene_copy / "masks").mkdir()
    mask = np.zeros((18, 24), np.uint8)
    mask[:, 5:] = 255
    Image.fromarray(mask).save(scene_copy / "masks" / "0001.png.png")
    rgba = np.full((18, 24, 4), 200, np.uint8)
    rgba[:4, :, 3] = 0
    Image.fromarray(rgba).save(scene_copy / "images" / "0002.png")
    scene = load_scene(scene_copy)
    assert scene.valid is not None
    np.testing.assert_array_equal(scene.valid[0], mask > 0)
    assert not scene.valid[1, :4].any() and scene.valid[1, 4:].all() and scene.valid[2].all()
    shown = load_scene(scene_copy, alpha="background")
    assert shown.alpha is not None and (shown.alpha[0] == 255).all()
    assert (shown.images[1, :4] == 0).all() and (shown.alpha[1, :4] == 0).all()
    assert (shown.view_on(1, WHITE)[:4] == 1).all()
    Image.new("L", (24, 18)).save(scene_copy / "masks" / "0001.png.png")
    with pytest.raises(InputError, match="leaves no pixel"):
        load_scene(scene_copy)


def test_exif_rotation_is_applied_only_when_the_declared_size_asks_for_it(scene_copy):
    path = scene_copy / "images" / "0001.png"
    upright = Image.open(path).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(path, exif=exif)
    scene = load_scene(scene_copy)
    np.testing.assert_array_equal(scene.images[0], np.asarray(upright))
    assert any("EXIF" in note for note in scene.report.notes)
    upright.save(path, exif=exif)
    np.testing.assert_array_equal(load_scene(scene_copy).images[0], np.asarray(upright))


def test_odd_pixel_types_are_converted_or_refused_in_one_sentence(scene_copy):
    folder = scene_copy / "images"
    deep = (np.arange(18 * 24, dtype=np.uint16) * 150).reshape(18, 24)
    Image.fromarray(deep).save(folder / "0001.png")
    Image.new("L", (24, 18), 77).save(folder / "0002.png")
    Image.new("P", (24, 18)).save(folder / "0003.png")
    scene = load_scene(scene_copy)
    np.testing.assert_array_equal(scene.images[0, ..., 1], deep >> 8)
    assert (scene.images[1] == 77).all()
    assert any("16 bit" in note for note in scene.report.notes)
    Image.fromarray(np.zeros((18, 24), np.float32)).save(folder / "0001.tif")
    (folder / "0001.png").unlink()
    with pytest.raises(InputError, match="unknown range"):
        load_scene(scene_copy)


def test_a_cut_off_image_is_named(scene_copy):
    path = scene_copy / "images" / "0006.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"0006\.png cannot be decoded"):
        load_scene(scene_copy)


def test_scenes_without_points_load(scene_copy):
    _edit_model(scene_copy, points=ColmapPoints.empty())
    scene = load_scene(scene_copy)
    assert scene.points.shape == (0, 3) and np.isfinite(scene.normalization).all()


def test_one_image_cannot_be_split(scene_copy):
    model = read_model(scene_copy / "sparse" / "0")
    _edit_model(scene_copy, images={1: model.images[1]})
    with pytest.raises(ConfigError, match="no training view"):
        load_scene(scene_copy)


def test_fox_transforms_report_the_absent_frames(data_root):
    from splats.data.capture_reader import read_capture
    from splats.data.preparation import Preparation

    capture = read_capture(data_root / "splats" / "fox", "nerfstudio")
    files, missing = Preparation(capture).find_all()
    assert (len(capture.views), len(files), len(missing)) == (67, 50, 17)


def test_both_descriptions_of_fox_agree_up_to_a_similarity(data_root):
    """COLMAP's and instant-ngp's cameras of the same photos: centers match after Procrustes."""
    from splats.data.capture_reader import read_capture
    from splats.data.normalization import camera_centers

    root = data_root / "splats" / "fox"
    poses = [
        {view.name.split("/")[-1]: view.world_to_camera for view in read_capture(root, kind).views}
        for kind in ("colmap", "nerfstudio")
    ]
    names = sorted(set(poses[0]) & set(poses[1]))
    first, second = (np.stack([pose[name] for name in names]) for pose in poses)
    a, b = camera_centers(first), camera_centers(second)
    a0, b0 = a - a.mean(0), b - b.mean(0)
    left, values, right = np.linalg.svd(b0.T @ a0)
    turn = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    scale = values.sum() / np.sum(a0**2)
    assert (
        np.linalg.norm(b0 - scale * a0 @ turn.T, axis=1).max()
        < 0.02 * np.linalg.norm(b0, axis=1).max()
    )
    turned = first[:, :3, :3] @ turn.T
    cosine = (np.einsum("vij,vij->v", turned, second[:, :3, :3]) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1.0


def test_lego_brings_its_own_split_and_is_white_behind(data_root):
    scene = load_scene(data_root / "splats" / "lego_mini")
    assert scene.kind == "blender" and scene.split.mode == "dataset"
    assert scene.split.train == ("train/r_0",) and scene.split.test == ("val/r_0",)
    assert (scene.view_on(0, WHITE)[0, 0] == 1).all() and scene.valid is None
    angle = json.loads((data_root / "splats/lego_mini/transforms_train.json").read_text())
    width = scene.images.shape[2]
    focal = 0.5 * width / np.tan(0.5 * angle["camera_angle_x"])
    assert np.isclose(scene.intrinsics[0, 0, 0], focal)


def test_real_scene_at_a_quarter_uses_the_actual_sizes(data_root):
    scene = load_scene(data_root / "splats" / "fox_pinhole", factor=4)
    assert scene.images.shape == (50, 240, 134, 3) and len(scene.test) == 7
    assert np.isclose(scene.intrinsics[0, 0, 0], 696.7070 * 134 / 538, rtol=1e-5)
    raw = load_scene(data_root / "splats" / "fox_pinhole", factor=4, normalize=False)
    assert np.isclose(raw.scene_scale, 1.1 * 4.35, atol=0.01)


def test_render_view_at_a_loaded_pose_reproduces_the_image(scene_folder):
    """Writer, reader and renderer agree on the pose convention."""
    raw = load_scene(scene_folder, normalize=False)
    camera = read_model(scene_folder / "sparse" / "0").cameras[1]
    again = render_view(raw.world_to_camera[5].astype(np.float64), camera, 1)
    assert np.abs(again.astype(int) - raw.images[5]).mean() < 0.5


def test_far_and_broken_points_are_dropped_with_a_note(scene_copy):
    points = read_model(scene_copy / "sparse" / "0").points
    clean = load_scene(scene_copy)
    strange = np.array([[1e200, 0, 0], [np.nan, 0, 0], [0, 3e7, 0]])
    positions = np.concatenate([points.positions, strange])
    added = ColmapPoints.without_tracks(positions, np.zeros((len(positions), 3), np.uint8))
    _edit_model(scene_copy, points=added)
    scene = load_scene(scene_copy)
    assert len(scene.points) == len(points.ids)
    np.testing.assert_allclose(scene.normalization, clean.normalization)
    assert any("2 points are not finite" in note for note in scene.report.notes)
    assert any("1 points are absurdly far" in note for note in scene.report.notes)


def test_a_camera_at_the_end_of_the_world_is_refused(scene_copy):
    images = read_model(scene_copy / "sparse" / "0").images
    number, image = next(iter(images.items()))
    _edit_model(
        scene_copy, images=images | {number: replace(image, translation=np.array([0, 1e30, 0]))}
    )
    with pytest.raises(InputError, match=f"camera of {image.name}.*register that image"):
        load_scene(scene_copy)


def test_an_image_of_another_shape_than_its_camera_is_refused(scene_copy):
    with Image.open(scene_copy / "images" / "0003.png") as image:
        turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.save(scene_copy / "images" / "0003.png")
    with pytest.raises(InputError, match=r"0003\.png has 18 x 24 pixels.*24 x 18"):
        load_scene(scene_copy)


@pytest.mark.parametrize("name", ["a" * 300, "x/" * 3000 + "y"])
def test_names_that_no_file_can_have_count_as_missing(scene_copy, name):
    images = read_model(scene_copy / "sparse" / "0").images
    number = next(iter(images))
    _edit_model(scene_copy, images=images | {number: replace(images[number], name=name)})
    assert load_scene(scene_copy).report.missing == (name,)


def test_upper_case_endings_of_every_kind_are_found(scene_copy):
    with Image.open(scene_copy / "images" / "0003.png") as image:
        image.save(scene_copy / "images" / "0003.TIF", "TIFF")
    (scene_copy / "images" / "0003.png").unlink()
    assert not load_scene(scene_copy).report.missing


@pytest.mark.parametrize("name", ["/", ".", "a/.."])
def test_names_without_a_file_are_refused(scene_copy, name):
    images = read_model(scene_copy / "sparse" / "0").images
    number = next(iter(images))
    _edit_model(scene_copy, images=images | {number: replace(images[number], name=name)})
    with pytest.raises(InputError, match="which no file can have"):
        load_scene(scene_copy)


def test_masks_of_classes_zero_and_one_are_masks(scene_copy):
    classes = np.ones((18, 24), np.uint8)
    classes[4, 3] = 0
    (scene_copy / "masks").mkdir()
    Image.fromarray(classes).save(scene_copy / "masks" / "0002.png")
    valid = load_scene(scene_copy).valid
    assert valid is not None and np.argwhere(~valid).tolist() == [[1, 4, 3]]

"""One person, one eye and one stack are one volume; what mixes them is separated or refused."""

from __future__ import annotations

import numpy as np
import pytest
from etils import epath
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from jepa3d.config import PrepareSettings
from jepa3d.data import SkipVolume, read_volume
from jepa3d.data.image_groups import group_images
from jepa3d.data.index import read_rows
from jepa3d.data.inventory import Inventory, take_inventory
from jepa3d.data.prepare import prepare
from tests.jepa3d.data.oct_files import make_dataset, random_pixels, save, set_spacing


def inventory_of(folder, **changes) -> Inventory:
    settings = PrepareSettings(shape=(8, 32, 32), patch=(4, 16, 16), workers=0, **changes)
    return take_inventory(folder, folder / "out", settings)


def members(inventory: Inventory) -> list[tuple[str, ...]]:
    return [item.members for item in inventory.items]


def refusal(path, **options) -> SkipVolume:
    with pytest.raises(SkipVolume) as caught:
        read_volume(path, **options)
    assert caught.value.reason == "mixed_volumes"
    return caught.value


def images(folder, names, seed=0) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    pixels = random_pixels((len(names), 20, 30), seed)
    for name, frame in zip(names, pixels):
        Image.fromarray(frame).save(folder / name)
    return pixels


def pages(path, frames) -> None:
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others)


def test_images_of_several_persons_in_one_folder_are_a_volume_each(tmp_path):
    names = [f"p{person:02}_{frame:03}.png" for person in range(1, 13) for frame in range(5)]
    images(tmp_path, names)
    found = inventory_of(tmp_path)
    assert members(found) == [tuple(names[k : k + 5]) for k in range(0, 60, 5)]
    assert "p01_000.png" in str(refusal(tmp_path))


def test_one_image_of_each_of_several_persons_is_refused_with_their_names(tmp_path):
    names = [f"p{person:02}_{person + 40:03}.png" for person in range(1, 13)]
    images(tmp_path, names)
    save(make_dataset(random_pixels()), tmp_path)
    found = inventory_of(tmp_path)
    assert [item.path for item in found.items] == ["volume.dcm"]
    assert {named.path: named.reason.value for named in found.named} == dict.fromkeys(
        names, "mixed_volumes"
    )
    assert all("p01_041.png, p02_042.png" in named.detail for named in found.named)
    assert all("12 in all" in named.detail for named in found.named)


@pytest.mark.parametrize(
    "names",
    [
        [f"{eye}_{frame}.png" for eye in ("OD", "OS") for frame in range(1, 8)],
        [f"scan{frame}_{eye}.png" for eye in ("l", "r") for frame in range(1, 8)],
        [f"v{visit}_frame_{frame}.png" for visit in (1, 2) for frame in range(1, 8)],
        [f"frame_{frame}_patient_{p}.png" for p in (3, 4) for frame in range(1, 8)],
    ],
)
def test_names_that_differ_in_more_than_a_running_number_are_two_volumes(names):
    assert group_images(list(reversed(names))).groups == [names[:7], names[7:]]


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        ([f"{n}.bmp" for n in range(1, 12)], []),
        ([f"hc01_v1_R_frame_{n:03}.png" for n in range(1, 9)], []),
        ([f"scan_{n}_of_49.png" for n in range(1, 9)], []),
        (["1.tif", "2.tif", "10.tif"], ["average.tif", "test.tif"]),
    ],
)
def test_one_running_number_is_one_volume_in_numeric_order(names, left_out):
    found = group_images([*left_out, *reversed(names)])
    assert found.groups == [names] and found.left_out == left_out


@pytest.mark.parametrize(
    "names", [[f"patient_{n}.png" for n in range(9)], ["smith.png", "jones.png"]]
)
def test_persons_are_no_running_number(names):
    assert not group_images(names).together


def test_a_pattern_for_the_participant_keeps_persons_apart_and_names_them(tmp_path):
    images(tmp_path, [f"scan_{person}{frame:03}.png" for person in (1, 2) for frame in range(6)])
    assert len(inventory_of(tmp_path).items) == 1  # one running number
    found = inventory_of(tmp_path, participant_pattern=r"scan_(\d)\d{3}\.png")
    assert [item.participant for item in found.items] == ["1", "2"]
    folder = tmp_path / "alone"
    images(folder, [f"x_{frame}.png" for frame in range(6)])
    whole = inventory_of(folder, participant_pattern=r"(x)_\d")
    assert [(item.path, item.participant) for item in whole.items] == [(".", "x")]


def test_the_eye_of_a_volume_of_images_is_that_of_their_names(tmp_path):
    images(tmp_path / "both", [f"{eye}_{n}.png" for eye in ("OD", "OS") for n in range(6)])
    images(tmp_path / "one", [f"s_OS_{n}.png" for n in range(6)])
    assert read_volume(tmp_path / "one").metadata["laterality"] == "L"
    images(tmp_path / "os", [f"{n}.png" for n in range(6)])
    assert read_volume(tmp_path / "os").metadata["laterality"] == "L"


def test_tiff_files_of_several_pages_are_volumes_of_their_own(tmp_path):
    stacks = [random_pixels((7, 20, 30), seed) for seed in range(6)]
    for number, stack in enumerate(stacks):
        pages(tmp_path / f"{number}.tif", stack)
    found = inventory_of(tmp_path)
    assert [item.path for item in found.items] == [f"{n}.tif" for n in range(6)]
    for number, stack in enumerate(stacks):
        volume = read_volume(tmp_path / f"{number}.tif", spacing_mm=(0.1, 0.004, 0.01))
        np.testing.assert_array_equal(volume.pixels, stack)
    assert "0.tif" in str(refusal(tmp_path))


def test_a_tiff_stack_beside_single_images_is_no_image_of_theirs(tmp_path):
    names = [f"{n}.tif" for n in range(1, 7)]
    images(tmp_path, names)
    pages(tmp_path / "7.tif", random_pixels((7, 20, 30), 7))
    found = inventory_of(tmp_path)
    assert sorted((item.path, item.members) for item in found.items) == [
        ("1.tif", tuple(names)),
        ("7.tif", ()),
    ]


def test_sixteen_bit_pages_keep_their_values(tmp_path):
    pixels = random_pixels((6, 20, 30))
    pages(tmp_path / "a.tif", pixels.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").pixels, pixels)


def test_a_stack_that_only_imagej_can_read_is_refused(tmp_path):
    frame = Image.fromarray(random_pixels()[0])
    frame.save(tmp_path / "a.tif", description="ImageJ=1.53\nimages=49\nslices=49\n")
    with pytest.raises(SkipVolume, match="49 images of ImageJ") as caught:
        read_volume(tmp_path / "a.tif")
    assert caught.value.reason == "unsupported_format"


def single_frames(folder, count=6, **tags):
    """Files of one series; a callable tag is given the number of the file."""
    for number in range(count):
        dataset = make_dataset(random_pixels((1, 64, 48), seed=number))
        set_spacing(dataset, (0.1, 0.004, 0.01))
        place = dataset.PerFrameFunctionalGroupsSequence[0]
        place.PlanePositionSequence[0].ImagePositionPatient = ["0", "0", f"{number * 0.1:.3f}"]
        for name, value in tags.items():
            target = place.FrameContentSequence[0] if name == "StackID" else dataset
            setattr(target, name, value(number) if callable(value) else value)
        save(dataset, folder, f"{number}.dcm")


@pytest.mark.parametrize(
    ("tag", "values"),
    [("PatientID", "ab"), ("ImageLaterality", "RL"), ("StackID", "12")],
)
def test_one_series_of_two_persons_eyes_or_stacks_is_two_volumes(tmp_path, tag, values):
    single_frames(tmp_path, **{tag: lambda number: values[number % 2]})
    found = inventory_of(tmp_path)
    assert members(found) == [("0.dcm", "2.dcm", "4.dcm"), ("1.dcm", "3.dcm", "5.dcm")]
    if tag == "PatientID":
        assert [item.participant for item in found.items] == ["a", "b"]
    assert f"{values[1]}" in str(refusal(tmp_path))


def test_files_that_leave_the_eye_open_go_with_a_series_of_one_eye(tmp_path):
    single_frames(tmp_path, ImageLaterality=lambda number: "R" if number else "")
    found = inventory_of(tmp_path)
    assert members(found) == [tuple(f"{n}.dcm" for n in range(6))]
    assert read_volume(tmp_path).metadata["laterality"] == "R"


def test_a_file_that_leaves_open_which_of_two_eyes_it_is_of_is_refused(tmp_path):
    single_frames(tmp_path, count=7, ImageLaterality=lambda n: "" if n == 6 else "RL"[n % 2])
    found = inventory_of(tmp_path)
    assert len(found.items) == 2
    assert [(named.path, named.reason.value) for named in found.named] == [
        ("6.dcm", "mixed_volumes")
    ]
    assert "L, R" in found.named[0].detail


def test_a_stack_number_for_each_frame_counts_frames(tmp_path):
    single_frames(tmp_path, StackID=lambda number: str(number + 1))
    assert members(inventory_of(tmp_path)) == [tuple(f"{n}.dcm" for n in range(6))]
    assert len(read_volume(tmp_path).pixels) == 6


def test_a_file_of_several_frames_is_no_frame_of_a_series(tmp_path):
    single_frames(tmp_path)
    save(make_dataset(random_pixels()), tmp_path, "whole.dcm")
    assert "whole.dcm" in str(refusal(tmp_path))


def woven_stacks(pixels: np.ndarray):
    """Frames of stacks 1 and 2 in turn, each stack at places of its own."""
    dataset = make_dataset(pixels)
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].StackID = "12"[index % 2]
        position = group.PlanePositionSequence[0]
        position.ImagePositionPatient = ["0", "0", f"{index // 2 * 0.1 + index % 2 * 3:.3f}"]
    return dataset


def test_stacks_of_one_file_are_volumes_of_their_own(tmp_path):
    pixels = random_pixels((12, 64, 48))
    path = save(woven_stacks(pixels), tmp_path)
    items = inventory_of(tmp_path).items
    assert [(item.path, item.part) for item in items] == [
        ("volume.dcm#1", "1"),
        ("volume.dcm#2", "2"),
    ]
    for item, expected in zip(items, (pixels[::2], pixels[1::2])):
        volume = read_volume(path, part=item.part)
        np.testing.assert_array_equal(volume.pixels, expected)
        assert volume.spacing_mm[0] == pytest.approx(0.1)
    assert "2 stacks" in str(refusal(path)) and "none is 3" in str(refusal(path, part="3"))


def test_a_stack_has_the_rescales_of_its_own_frames(tmp_path):
    pixels = random_pixels((12, 64, 48)) // 2
    dataset = woven_stacks(pixels)
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        transformation = Dataset()
        transformation.RescaleSlope = "2" if index % 2 else "1"
        transformation.RescaleIntercept = "0"
        group.PixelValueTransformationSequence = Sequence([transformation])
    volume = read_volume(save(dataset, tmp_path), part="2")
    np.testing.assert_array_equal(volume.pixels, pixels[1::2])  # one slope for all: no change


def test_prepare_gives_each_volume_of_a_folder_its_rows_and_its_record(tmp_path):
    names = [f"{eye}_{frame}.png" for eye in ("OD", "OS") for frame in range(6)]
    images(tmp_path / "in", [*names, "report.png"])
    save(woven_stacks(random_pixels((12, 192, 48))), tmp_path / "in", "woven.dcm")
    settings = PrepareSettings(shape=(8, 32, 32), patch=(4, 16, 16), workers=0, eval_fraction=0)
    account = prepare(tmp_path / "in", tmp_path / "out", settings)
    rows = {row["path"]: row for row in read_rows(epath.Path(tmp_path / "out" / "index.jsonl"))}
    assert account.volumes == 4
    assert {row["part_of"] for path, row in rows.items() if path in names} == {
        None,
        "OD_0.png",
        "OS_0.png",
    }
    assert [rows[name]["laterality"] for name in ("OD_3.png", "OS_3.png")] == ["R", "L"]
    assert rows["woven.dcm#1"]["status"] == rows["woven.dcm#2"]["status"] == "ok"
    assert rows["report.png"]["reason"] == "other_file"
    assert prepare(tmp_path / "in", tmp_path / "out", settings).new_volumes == 0

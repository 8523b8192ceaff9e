"""Unusual image files: their form is told, and their boxes lie where the objects are."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from rtdetr.data.decode import decode
from rtdetr.data.prepared import open_split
from tests.rtdetr.data.prepared import edited, findings, prepared
from tests.rtdetr.data.trees import OBJECTS, SIZE, coco, picture, write


def test_unusual_images_are_read_and_told(tmp_path):
    folder = coco(tmp_path / "coco")
    values = np.random.default_rng(0).integers(0, 65536, SIZE).astype(np.uint16)
    sixteen = io.BytesIO()
    Image.fromarray(values).save(sixteen, "PNG")
    forms = {
        "gray": (picture("gray", mode="L"), "gray_image"),
        "cmyk": (picture("cmyk", mode="CMYK", form="JPEG"), "cmyk_image"),
        "palette": (picture("palette", mode="P"), "palette_image"),
        "alpha": (picture("alpha", mode="RGBA"), "transparent_image"),
        "sixteen": (sixteen.getvalue(), "image_of_16_bit"),
    }

    def more(content):
        for number, name in enumerate(forms):
            row = {"id": 100 + number, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            content["images"].append(row)

    for name, (encoded, _) in forms.items():
        write(folder / "train2017" / name, encoded)
    report, output = prepared(edited(folder, more), tmp_path)
    assert all(findings(report)[kind] == 1 for _, kind in forms.values())
    assert len(open_split(output, "train")) == 2 + len(forms)


@pytest.mark.parametrize("orientation", range(5, 9))
def test_boxes_drawn_on_unrotated_pixels_are_turned_with_them(tmp_path, orientation):
    """A white rectangle lies in its box after rotation, wherever the file says that up is."""
    values = np.zeros((*SIZE, 3), np.uint8)
    values[10:20, 30:60] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", exif=exif)
    folder = coco(tmp_path / "coco")
    write(folder / "train2017" / "a.png", file.getvalue())

    def boxed(content):
        content["annotations"] = [dict(content["annotations"][0], bbox=[30, 10, 30, 10])]

    report, output = prepared(edited(folder, boxed), tmp_path)
    dataset = open_split(output, "train")
    pixels = decode(dataset.encoded(0), "a")
    left, top, width, height = dataset.objects(0).boxes.values[0].astype(int)
    inside = pixels[top : top + height, left : left + width]
    assert inside.min() == 255 and pixels.sum() == inside.sum()
    assert findings(report)["rotated_by_exif"] == 1


def test_colors_of_16_bits_are_told_though_pillow_calls_them_ordinary(tmp_path):
    folder = coco(tmp_path / "coco")
    values = np.random.default_rng(0).integers(0, 65536, (*SIZE, 3)).astype(np.uint16)
    write(folder / "train2017" / "a.png", cv2.imencode(".png", values)[1].tobytes())
    report, _ = prepared(folder, tmp_path)
    assert findings(report)["image_of_16_bit"] == 1


@pytest.mark.parametrize("mode, kind", [("LA", "gray_image"), ("YCbCr", "unusual_mode")])
def test_no_unusual_kind_of_image_goes_untold(tmp_path, mode, kind):
    folder = coco(tmp_path / "coco")
    write(folder / "train2017" / "a.png", picture("a", mode=mode, form="TIFF"))
    report, _ = prepared(folder, tmp_path)
    assert findings(report)[kind] == 1


@pytest.mark.parametrize("orientation", range(2, 9))
def test_boxes_on_the_upright_image_stay_and_the_rotation_is_told(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = SIZE if orientation < 5 else SIZE[::-1]
    folder = coco(tmp_path / "coco")
    write(folder / "train2017" / "a.png", picture("a", size=stored, exif=exif))
    report, output = prepared(folder, tmp_path)
    assert findings(report)["upright_by_exif"] == 1
    wanted = [box for _, *box in OBJECTS["a"]]
    np.testing.assert_array_equal(open_split(output, "train").objects(0).boxes.values, wanted)

"""Image files of all kinds become upright RGB, and damaged ones an error with their name."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rtdetr.data.decode import decode
from training.errors import InputError

HEIGHT, WIDTH = 48, 64
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
# Smooth, so that JPEG keeps it, and different in every corner and channel.
PIXELS = np.stack([COLUMNS * 4, ROWS * 5, (ROWS + COLUMNS) * 2], axis=-1).astype(np.uint8)
PICTURE = Image.fromarray(PIXELS)
JPEG_ERROR = 12  # gray levels; quality 95


def encoded(image: Image.Image, format_: str, **options) -> bytes:
    file = io.BytesIO()
    if format_ == "JPEG":
        options.setdefault("quality", 95)
    image.save(file, format_, **options)
    return file.getvalue()


def difference(found: np.ndarray, expected: np.ndarray) -> int:
    assert found.dtype == np.uint8 and found.shape == expected.shape
    return np.abs(found.astype(int) - expected).max()


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


# What undoes each EXIF orientation (Exif 2.32, tag 274).
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_photographs_come_out_upright(format_, orientation):
    file = encoded(PICTURE, format_, exif=oriented(orientation))
    assert difference(decode(file, "a"), UPRIGHT[orientation](PIXELS)) <= JPEG_ERROR


def test_color_is_red_green_blue():
    red = Image.new("RGB", (16, 16), (250, 10, 30))
    for format_ in ("JPEG", "PNG", "WEBP", "BMP"):
        found = decode(encoded(red, format_), "a")
        assert np.abs(found.astype(int) - (250, 10, 30)).max() <= 8, format_


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_gray_is_the_same_in_all_channels(format_):
    gray = PICTURE.convert("L")
    expected = np.repeat(np.asarray(gray)[..., None], 3, axis=-1)
    assert difference(decode(encoded(gray, format_), "a"), expected) <= JPEG_ERROR


def test_cmyk_has_the_colors_of_its_inks():
    inks = PICTURE.convert("CMYK")
    assert difference(decode(encoded(inks, "JPEG"), "a"), PIXELS) <= 2 * JPEG_ERROR


def test_sixteen_bits_keep_their_higher_byte():
    wide = (ROWS * 1000 + COLUMNS).astype(np.uint16)
    expected = np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    for format_ in ("PNG", "TIFF"):
        found = decode(encoded(Image.fromarray(wide), format_), "a")
        assert difference(found, expected) == 0
    assert expected.max() > 150 and len(np.unique(expected)) > 40


def test_palettes_one_bit_and_transparency_show_their_colors():
    few = PICTURE.quantize(16)
    assert difference(decode(encoded(few, "PNG"), "a"), np.asarray(few.convert("RGB"))) == 0
    assert difference(decode(encoded(few, "GIF"), "a"), np.asarray(few.convert("RGB"))) == 0
    bits = PICTURE.convert("1")
    assert difference(decode(encoded(bits, "PNG"), "a"), np.asarray(bits.convert("RGB"))) == 0
    clear = PICTURE.copy()
    clear.putalpha(Image.fromarray((COLUMNS * 4).astype(np.uint8)))
    assert difference(decode(encoded(clear, "PNG"), "a"), PIXELS) == 0


@pytest.mark.parametrize(
    "kind", ["plain", "progressive", "thumbnail", "cmyk", "PNG", "WEBP", "TIFF"]
)
def test_a_file_that_was_cut_off_is_an_error_not_a_half_gray_picture(kind):
    if kind == "thumbnail":
        small = encoded(PICTURE.resize((16, 12)), "JPEG")
        plain = encoded(PICTURE, "JPEG")
        # A segment APP2 that holds a whole JPEG, as thumbnails and camera previews do.
        segment = b"\xff\xe2" + (len(small) + 2).to_bytes(2, "big") + small
        file = plain[:2] + segment + plain[2:]
    elif kind in ("plain", "progressive"):
        file = encoded(PICTURE, "JPEG", progressive=kind == "progressive")
    elif kind == "cmyk":
        file = encoded(PICTURE.convert("CMYK"), "JPEG")
    else:
        file = encoded(PICTURE, kind)
    assert difference(decode(file, "a"), PIXELS) <= 40
    for part in (0.2, 0.4, 0.6, 0.8):
        with pytest.raises(InputError, match=r"photo\.jpg cannot be read.*replace the file"):
            decode(file[: int(part * len(file))], "photo.jpg")


def test_bytes_after_the_end_of_a_jpeg_do_no_harm():
    file = encoded(PICTURE, "JPEG")
    assert difference(decode(file + b"\0" * 300, "a"), decode(file, "a")) == 0


@pytest.mark.parametrize("file", [b"", b"<html>not found</html>", b"\xff\xd8\xff\xd9", b"\x89PNG"])
def test_what_is_no_image_is_an_error(file):
    with pytest.raises(InputError, match=r"photo\.jpg cannot be read"):
        decode(file, "photo.jpg")


def test_values_of_unknown_range_are_refused():
    for values in (np.ones((4, 4), np.float32), np.full((4, 4), 70_000, np.int32)):
        with pytest.raises(InputError, match="it has"):
            decode(encoded(Image.fromarray(values), "TIFF"), "a")


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_give_a_picture_or_an_input_error():
    generator = np.random.default_rng(0)
    files = [encoded(PICTURE, format_) for format_ in ("JPEG", "PNG", "TIFF", "GIF", "WEBP")]
    for number in range(200):
        damaged = bytearray(files[number % len(files)])
        for place in generator.integers(0, min(len(damaged), 400), 4):
            damaged[place] = int(generator.integers(256))
        try:
            found = decode(bytes(damaged), "a")
        except InputError:
            continue
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3


def test_real_photographs_agree_with_another_decoder(data_root):
    paths = sorted((data_root / "detector" / "tiny_coco" / "train2017").glob("*.jpg"))[:8]
    assert paths
    for path in paths:
        ours = decode(path.read_bytes(), path.name).astype(int)
        theirs = np.asarray(Image.open(path).convert("RGB")).astype(int)
        # Two versions of one library: they may differ in how chroma is enlarged.
        assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() < 0.5, path.name

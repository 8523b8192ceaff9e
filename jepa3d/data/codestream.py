"""Looks into compressed frames: which codec wrote them and how large they claim to be.

Only markers are parsed. Needed twice: a file whose transfer syntax names the wrong codec is decoded
by what the stream really is, and a damaged size field is caught before a decoder allocates by it.
JPEG markers: ITU-T T.81 table B.1; JPEG-LS: T.87; JPEG 2000 SIZ: T.800 A.5.1.
"""

from __future__ import annotations

import struct

from pydicom.uid import JPEG2000, UID, JPEGExtended12Bit, JPEGLossless, JPEGLSNearLossless

_J2K_START = b"\xff\x4f\xff\x51"
_JP2_BOX = b"\x00\x00\x00\x0cjP  "

# Codec of each start-of-frame marker, and the most general syntax of each codec.
_FRAME_MARKERS = {0xC0: "jpeg", 0xC1: "jpeg", 0xC3: "jpeg_lossless", 0xF7: "jpeg_ls"}
CODEC_SYNTAX = {
    "jpeg": JPEGExtended12Bit,
    "jpeg_lossless": JPEGLossless,
    "jpeg_ls": JPEGLSNearLossless,
    "jpeg2000": JPEG2000,
}
# The decoder plug-in of pydicom for each codec ("" is RLE). GDCM could decode all of them, but a
# damaged stream can make it end the process; it is kept, in isolation, for lossless JPEG.
CODEC_PLUGIN = {
    "": "pydicom",
    "jpeg": "pillow",
    "jpeg_lossless": "gdcm",
    "jpeg_ls": "pyjpegls",
    "jpeg2000": "pylibjpeg",
}
# By the last number of the UID, 1.2.840.10008.1.2.4.X.
_CODEC_OF_SYNTAX = {
    "50": "jpeg",
    "51": "jpeg",
    "57": "jpeg_lossless",
    "70": "jpeg_lossless",
    "80": "jpeg_ls",
    "81": "jpeg_ls",
    **dict.fromkeys(("90", "91", "92", "93", "201", "202", "203"), "jpeg2000"),
}


def codec_of_syntax(syntax: UID) -> str:
    """Codec that a transfer syntax declares, "" for RLE and uncompressed ones."""
    prefix, _, last = str(syntax).rpartition(".")
    return _CODEC_OF_SYNTAX.get(last, "") if prefix == "1.2.840.10008.1.2.4" else ""


def codec_of_stream(data: bytes) -> str:
    """Codec that the first bytes of a frame prove, "" when they carry no signature."""
    if data.startswith((_J2K_START, _JP2_BOX)):
        return "jpeg2000"
    marker = _jpeg_frame_header(data)
    return "" if marker is None else _FRAME_MARKERS[marker[0]]


def declared_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream declares, None when unknown."""
    if data.startswith((_J2K_START, _JP2_BOX)):
        start = data.find(_J2K_START, 0, 4096)
        if start < 0 or len(data) < start + 24:
            return None
        # Start and SIZ markers, length and capabilities take 8 bytes before the size.
        width, height, left, top = struct.unpack(">4I", data[start + 8 : start + 24])
        return height - top, width - left
    marker = _jpeg_frame_header(data)
    return None if marker is None else marker[1:]


def _jpeg_frame_header(data: bytes) -> tuple[int, int, int] | None:
    """(marker, rows, columns) of the first start-of-frame segment."""
    if not data.startswith(b"\xff\xd8"):
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _FRAME_MARKERS:
            # Marker, length and sample precision take 5 bytes before the size.
            rows, columns = struct.unpack(">HH", data[position + 5 : position + 9])
            return marker, rows, columns
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return None

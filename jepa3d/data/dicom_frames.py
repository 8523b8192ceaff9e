"""Decodes the pixel data of a DICOM file frame by frame, so that one bad frame costs one frame.

`locate_frames` finds the bytes of each frame without decoding; `decode_frames` decodes them and
interpolates over a small share of broken ones.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRBigEndian

from jepa3d.data import lossless_jpeg
from jepa3d.data.codestream import (
    CODEC_PLUGIN,
    CODEC_SYNTAX,
    codec_of_stream,
    codec_of_syntax,
    declared_size,
)
from jepa3d.data.dicom_file import DicomHeader
from jepa3d.data.volume import DECODE_ERRORS, MAX_VOXELS, SkipReason, SkipVolume

_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# VRs whose explicit form has two reserved bytes and a 4-byte length.
_LONG_VRS = (b"OB", b"OW", b"UN", b"OF", b"OD", b"OL", b"OV")

NATIVE_SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)


def read_frames(header: DicomHeader, corrupt_fraction: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Decodes all frames of a file.

    Args:
      header: from `read_header`.
      corrupt_fraction: largest share of broken frames that is interpolated over, in [0, 1).

    Returns:
      uint8, uint16 or int16 [frame, row, column] as stored, and notes on what was repaired.

    Raises:
      SkipVolume: no pixel data, cut short, no decoder, or too many broken frames.
    """
    if header.pixel_offset < 0:
        raise SkipVolume(
            SkipReason.MISSING_PIXEL_DATA, "no pixel data element; often an incomplete download"
        )
    _check_syntax(header.transfer_syntax)
    length, start = _pixel_element(header)
    if str(header.transfer_syntax) in NATIVE_SYNTAXES:
        return _native_frames(header, length, start)
    if length != _UNDEFINED_LENGTH:
        raise SkipVolume(
            SkipReason.CORRUPT_FRAMES,
            f"{header.transfer_syntax.name} is declared but the pixel data is not encapsulated",
        )
    frames = _encapsulated_frames(header, start)
    return _decode_frames(header, frames, corrupt_fraction)


def _check_syntax(syntax: UID) -> None:
    if str(syntax) in NATIVE_SYNTAXES:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise SkipVolume(
            SkipReason.UNKNOWN_TRANSFER_SYNTAX, f"no decoder knows transfer syntax {syntax}"
        ) from error
    plugin = CODEC_PLUGIN[codec_of_syntax(syntax)]
    if plugin not in decoder.available_plugins:
        raise SkipVolume(SkipReason.MISSING_DECODER, f"{syntax.name} needs {plugin}; install it")


def _pixel_element(header: DicomHeader) -> tuple[int, int]:
    """Length of the pixel data element and the offset of its value."""
    header.stream.seek(header.pixel_offset)
    head = header.stream.read(12)
    order = ">" if header.transfer_syntax == ExplicitVRBigEndian else "<"
    implicit = str(header.transfer_syntax) == "1.2.840.10008.1.2"
    size = 8 if implicit else 12
    if len(head) < size:
        raise SkipVolume(SkipReason.TRUNCATED_PIXEL_DATA, "the file ends at its pixel data tag")
    if not implicit and head[4:6] not in _LONG_VRS:
        raise SkipVolume(SkipReason.CORRUPT_FRAMES, "the pixel data element has no known VR")
    (length,) = struct.unpack(order + "I", head[4:8] if implicit else head[8:12])
    if length == 0:
        raise SkipVolume(SkipReason.ZERO_LENGTH_PIXEL_DATA, "the pixel data element has 0 bytes")
    return length, header.pixel_offset + size


def _native_frames(
    header: DicomHeader, length: int, start: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Uncompressed frames straight from the file; nothing is allocated before sizes agree."""
    if length == _UNDEFINED_LENGTH:
        raise SkipVolume(SkipReason.CORRUPT_FRAMES, "uncompressed pixel data of undefined length")
    frame_bytes = header.rows * header.columns * header.bits_allocated // 8
    stored = length // frame_bytes
    frames, notes = _resolve_frame_count(header, stored)
    available = header.stream_bytes - start
    if available < min(length, frames * frame_bytes):
        raise SkipVolume(
            SkipReason.TRUNCATED_PIXEL_DATA,
            f"{available} of {frames * frame_bytes} bytes of pixel data are in the file",
        )
    if stored < frames:
        raise SkipVolume(
            SkipReason.FRAME_COUNT_MISMATCH,
            f"the header declares {frames} frames, the pixel data holds {stored}",
        )
    header.stream.seek(start)
    raw = header.stream.read(frames * frame_bytes)
    if raw[:4] == _ITEM:  # no image begins with the four bytes that begin a compressed one
        raise SkipVolume(
            SkipReason.CORRUPT_FRAMES,
            f"{header.transfer_syntax.name} is declared but the pixels are a compressed stream",
        )
    return _words(header, raw).reshape(frames, header.rows, header.columns), notes


def _resolve_frame_count(header: DicomHeader, stored: int) -> tuple[int, dict[str, Any]]:
    """The header's count, unless it is absent or contradicted by one group per stored frame."""
    if header.frames == 0:
        if stored * header.rows * header.columns > MAX_VOXELS:
            raise SkipVolume(SkipReason.TOO_LARGE, f"{stored} frames are stored")
        return max(stored, 1), {"frame_count": "NumberOfFrames is absent, taken from the data"}
    groups = header.dataset.get("PerFrameFunctionalGroupsSequence") or []
    if stored > header.frames and len(groups) == stored:
        if stored * header.rows * header.columns > MAX_VOXELS:
            raise SkipVolume(SkipReason.TOO_LARGE, f"{stored} frames are stored")
        return stored, {"frame_count": f"NumberOfFrames says {header.frames}, groups {stored}"}
    if stored > header.frames:
        return header.frames, {"frame_count": f"{stored} frames are stored, the rest is ignored"}
    return header.frames, {}


def _words(header: DicomHeader, raw: bytes) -> np.ndarray:
    """Stored words in native byte order, masked to the bits that are declared as used."""
    big = header.transfer_syntax == ExplicitVRBigEndian
    if header.bits_allocated == 8:
        # Big-endian OW words hold two 8-bit pixels each, swapped.
        words = np.frombuffer(raw, np.uint8)
        header.stream.seek(header.pixel_offset + 4)
        if big and header.stream.read(2) == b"OW" and len(words) % 2 == 0:
            words = words.reshape(-1, 2)[:, ::-1].reshape(-1)
        return words >> header.unused_low_bits if header.unused_low_bits else words
    words = np.frombuffer(raw, ">u2" if big else "<u2").astype(np.uint16)
    return _apply_sign(header, words)


def _apply_sign(header: DicomHeader, words: np.ndarray) -> np.ndarray:
    bits = header.bits_stored
    if header.unused_low_bits:
        words = words >> np.uint16(header.unused_low_bits)
    # Old files keep overlays in the unused high bits.
    if bits < 16:
        words = words & np.uint16((1 << bits) - 1)
    if int(header.dataset.get("PixelRepresentation") or 0) == 0:
        return words
    # Moves the sign bit to the top; the arithmetic shift back repeats it.
    shift = 16 - bits
    return (words << np.uint16(shift)).view(np.int16) >> shift


def _encapsulated_frames(header: DicomHeader, start: int) -> list[bytes]:
    """Splits an encapsulated stream into the bytes of each frame."""
    fragments, table, ended = _items(header, start)
    declared = header.frames
    if not ended and len(fragments) < max(declared, 1):
        raise SkipVolume(
            SkipReason.TRUNCATED_PIXEL_DATA,
            f"the compressed stream ends after {len(fragments)} of {max(declared, 1)} frames",
        )
    if declared in (0, len(fragments)):
        return fragments
    if len(fragments) < declared:
        raise SkipVolume(
            SkipReason.FRAME_COUNT_MISMATCH,
            f"the header declares {declared} frames, the stream holds {len(fragments)}",
        )
    # More fragments than frames: the basic offset table, or end-of-image markers, tell.
    rebuilt = encapsulate(fragments, has_bot=False)
    if table:
        # In place of the empty table, 8 bytes, that `encapsulate` has written.
        rebuilt = _ITEM + struct.pack("<I", len(table)) + table + rebuilt[8:]
    return [bytes(frame) for frame in generate_frames(rebuilt, number_of_frames=declared)][
        :declared
    ]


def _items(header: DicomHeader, start: int) -> tuple[list[bytes], bytes, bool]:
    """Fragments, basic offset table, and whether the sequence delimiter was reached.

    A fragment that is cut off by the end of the file is dropped.
    """
    stream, fragments, table, first = header.stream, [], b"", True
    stream.seek(start)
    while True:
        head = stream.read(8)
        if len(head) < 8 or head[:4] == _SEQUENCE_END:
            return fragments, table, head[:4] == _SEQUENCE_END
        (length,) = struct.unpack("<I", head[4:])
        if head[:4] != _ITEM or length > header.stream_bytes - stream.tell():
            return fragments, table, False
        value = stream.read(length)
        if first:
            table, first = value, False
        else:
            fragments.append(value)


def _decode_frames(
    header: DicomHeader, frames: list[bytes], corrupt_fraction: float
) -> tuple[np.ndarray, dict[str, Any]]:
    if len(frames) * header.rows * header.columns > MAX_VOXELS or not frames:
        raise SkipVolume(SkipReason.CORRUPT_FRAMES, f"the stream holds {len(frames)} frames")
    allowed = int(corrupt_fraction * len(frames))
    if any(_codec(header, data) == "jpeg_lossless" for data in frames):
        results = lossless_jpeg.decode(frames, _options(header, "jpeg_lossless"), allowed)
    else:
        results = _decode_in_turn(header, frames, allowed)
    errors = {index: r for index, r in enumerate(results) if isinstance(r, str)}
    if len(errors) > allowed:
        raise _refusal(header, frames, errors)
    notes: dict[str, Any] = {"interpolated_frames": sorted(errors)} if errors else {}
    found = codec_of_stream(frames[0])
    if found and found != codec_of_syntax(header.transfer_syntax):
        declared = header.transfer_syntax.name
        notes["transfer_syntax_mismatch"] = f"declared {declared}, the stream is {found}"
    return _fill_gaps([None if isinstance(r, str) else r for r in results]), notes


def _decode_in_turn(header: DicomHeader, frames: list[bytes], allowed: int) -> list[Any]:
    """For each frame its array or an error text; stops trying after too many errors."""
    results: list[Any] = []
    for data in frames:
        try:
            results.append(_decode_frame(header, data))
        except DECODE_ERRORS as error:
            results.append((str(error).splitlines() or [repr(error)])[0][:200])
        if sum(isinstance(result, str) for result in results) > allowed:
            break
    return results


def _refusal(header: DicomHeader, frames: list[bytes], errors: dict[int, str]) -> SkipVolume:
    maker = str(header.dataset.get("Manufacturer") or "").lower()
    signed = any(codec_of_stream(frame) for frame in frames)
    if "zeiss" in maker and header.transfer_syntax.is_compressed and not signed:
        return SkipVolume(
            SkipReason.ZEISS_OBFUSCATED,
            "the frames carry no codec signature: a native Zeiss export with obfuscated pixels; "
            "export it again without obfuscation",
        )
    index = next(iter(errors))
    return SkipVolume(
        SkipReason.CORRUPT_FRAMES,
        f"more than the allowed share of {len(frames)} frames cannot be decoded; "
        f"frame {index}: {errors[index]}",
    )


def _codec(header: DicomHeader, data: bytes) -> str:
    """Codec that a frame's signature proves, else the one that the file declares.

    A wrong transfer syntax UID therefore does no harm: the codestream says what it is.
    """
    return codec_of_stream(data) or codec_of_syntax(header.transfer_syntax)


def _options(header: DicomHeader, codec: str) -> dict[str, Any]:
    """Keyword arguments of pydicom's decoders for one frame."""
    declared = header.transfer_syntax
    photometric = header.dataset.get("PhotometricInterpretation") or "MONOCHROME2"
    same = codec == codec_of_syntax(declared)
    return {
        "rows": header.rows,
        "columns": header.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": header.bits_allocated,
        "bits_stored": header.bits_stored,
        "pixel_representation": int(header.dataset.get("PixelRepresentation") or 0) & 1,
        "photometric_interpretation": str(photometric),
        # Text, since the worker for lossless JPEG gets the options as JSON.
        "transfer_syntax_uid": str(declared if same else CODEC_SYNTAX[codec]),
        "pixel_keyword": "PixelData",
    }


def _decode_frame(header: DicomHeader, data: bytes) -> np.ndarray:
    """Decodes one frame of any codec but lossless JPEG.

    Raises:
      one of `DECODE_ERRORS`.
    """
    codec = _codec(header, data)
    size = declared_size(data)
    if size is not None and size != (header.rows, header.columns):
        raise ValueError(f"codestream of {size[0]} x {size[1]} in a frame of another size")
    options = _options(header, codec)
    options["transfer_syntax_uid"] = UID(options["transfer_syntax_uid"])
    # Run lengths keep whole words; every other codec stores numbers of `bits_stored` bits.
    shifted = not codec and header.unused_low_bits > 0
    options["correct_unused_bits"] = not shifted
    array, _ = get_decoder(options["transfer_syntax_uid"]).as_array(
        encapsulate([data]), index=0, raw=True, decoding_plugin=CODEC_PLUGIN[codec], **options
    )
    if array.shape != (header.rows, header.columns):
        raise ValueError(f"decoded frame has shape {array.shape}")
    if shifted:
        if header.bits_allocated == 8:
            return array >> np.uint8(header.unused_low_bits)
        return _apply_sign(header, array.view(np.uint16))
    return array


def _fill_gaps(frames: list[np.ndarray | None]) -> np.ndarray:
    """Replaces missing frames by linear interpolation between their nearest neighbors."""
    # Never empty: `corrupt_fraction` is below 1, so fewer frames than all may be broken.
    known = [index for index, frame in enumerate(frames) if frame is not None]
    first = frames[known[0]]
    assert first is not None
    volume = np.empty((len(frames), *first.shape), first.dtype)
    for index, frame in enumerate(frames):
        if frame is not None:
            volume[index] = frame
    for index in sorted(set(range(len(frames))) - set(known)):
        below = max((k for k in known if k < index), default=known[0])
        above = min((k for k in known if k > index), default=known[-1])
        weight = 0.0 if below == above else (index - below) / (above - below)
        low, high = volume[below].astype(np.float32), volume[above].astype(np.float32)
        blend = (1.0 - weight) * low + weight * high
        volume[index] = np.rint(blend).astype(volume.dtype)
    return volume

"""Header pass over one DICOM file: what it is, and where its pixels lie. No pixel is decoded here.

The transfer syntax of a file is never rewritten, `force=True` is never used and no missing tag is
guessed: a file that cannot be read as it says is skipped with the reason.
"""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset as read_dicom_elements
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from jepa3d.data.volume import (
    DECODE_ERRORS,
    MAX_FRAME_PIXELS,
    MAX_VOXELS,
    SkipReason,
    SkipVolume,
)

OPT_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
_SOP_CLASS_TAG = 0x00080016
# Two bytes for each voxel, 16 MiB for the header.
_MAX_INFLATED_BYTES = 2 * MAX_VOXELS + 2**24

# First bytes of formats that turn up under a .dcm name.
_OTHER_FORMATS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"%PDF", "a PDF file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"<", "an HTML or XML text"),
)


@dataclass(frozen=True)
class DicomHeader:
    """Header of an OPT file and the raw bytes after it.

    Attributes:
      dataset: every element before the pixel data.
      transfer_syntax: UID of the file meta header.
      frames, rows, columns: declared size; `frames` is 0 when NumberOfFrames is absent.
      bits_allocated, bits_stored: 8 or 16; the used part of it.
      unused_low_bits: bits below the used ones, 0 unless HighBit says otherwise.
      stream: positioned nowhere in particular; holds the whole (inflated) file.
      pixel_offset: where the pixel data element starts in `stream`, -1 when there is none.
      stream_bytes: length of `stream`.
    """

    dataset: Dataset
    transfer_syntax: UID
    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    unused_low_bits: int
    stream: BinaryIO
    pixel_offset: int
    stream_bytes: int


def read_dataset(path: Path) -> tuple[Dataset, BinaryIO, int]:
    """Reads the elements before the pixel data.

    Returns:
      The dataset, a stream over the whole file (inflated for the deflated syntax) and the offset at
      which reading stopped. The caller closes the stream.

    Raises:
      SkipVolume: not DICOM, empty, unreadable, or cut inside the header.
    """
    _check_first_bytes(path)
    stream: BinaryIO = open(path, "rb")  # noqa: SIM115 - handed to the caller
    try:
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return _read_deflated(stream, meta)
        dataset = dcmread(stream, stop_before_pixels=True)
        return dataset, stream, stream.tell()
    except SkipVolume:
        stream.close()
        raise
    except DECODE_ERRORS as error:
        stream.close()
        raise SkipVolume(SkipReason.BAD_HEADER, f"header cannot be parsed ({error})") from error


def _check_first_bytes(path: Path) -> None:
    try:
        size = path.stat().st_size
        # Before it is opened, since opening a pipe would wait for its writer.
        if path.exists() and not path.is_file():
            raise SkipVolume(SkipReason.UNREADABLE_FILE, "not a regular file")
        with open(path, "rb") as file:
            start = file.read(132)
    except FileNotFoundError as error:
        raise SkipVolume(SkipReason.MISSING_FILE, "the file does not exist") from error
    except OSError as error:
        raise SkipVolume(SkipReason.UNREADABLE_FILE, f"cannot be opened ({error})") from error
    if size == 0:
        raise SkipVolume(SkipReason.EMPTY_FILE, "the file has 0 bytes")
    if start[128:132] == b"DICM":
        return
    # Or group 0002 or 0008 in little endian, with which a dataset begins.
    if start[:4] == b"DICM" or start[:2] in (b"\x02\x00", b"\x08\x00"):
        raise SkipVolume(
            SkipReason.MISSING_PREAMBLE, "a DICOM dataset without its 128-byte preamble"
        )
    for signature, meaning in _OTHER_FORMATS:
        if start.startswith(signature):
            raise SkipVolume(SkipReason.NOT_DICOM, f"the file is {meaning}")
    raise SkipVolume(SkipReason.NOT_DICOM, "no DICM prefix at byte 128")


def _read_deflated(stream: BinaryIO, meta: Dataset) -> tuple[Dataset, BinaryIO, int]:
    """Inflates the dataset with a bound on its size, then parses it as explicit little endian."""
    # The group length counts the bytes after its own 12-byte element.
    stream.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
    # Negative: raw deflate without a zlib header, as DICOM PS3.5 A.5 has it.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(stream.read(), _MAX_INFLATED_BYTES)
    stream.close()
    if inflater.unconsumed_tail:
        raise SkipVolume(SkipReason.TOO_LARGE, "the deflated dataset is larger than any volume")
    buffer = io.BytesIO(inflated)
    dataset = read_dicom_elements(
        buffer,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, length: tag == 0x7FE00010,
    )
    dataset.file_meta = meta  # type: ignore[assignment]
    return dataset, buffer, buffer.tell()


def read_header(path: Path) -> DicomHeader:
    """Reads and checks the header of an Ophthalmic Tomography file.

    Raises:
      SkipVolume: with the reason, see `SkipReason`. The stream is then closed.
    """
    dataset, stream, offset = read_dataset(path)
    try:
        return _checked_header(dataset, stream, offset)
    except DECODE_ERRORS as error:
        stream.close()
        raise SkipVolume(SkipReason.BAD_HEADER, f"a header value is invalid ({error})") from error
    except SkipVolume:
        stream.close()
        raise


def _checked_header(dataset: Dataset, stream: BinaryIO, offset: int) -> DicomHeader:
    stream_bytes = stream.seek(0, os.SEEK_END)
    check_sop_class(dataset)
    stream.seek(max(offset, 0))
    # The tag (7FE0,0010) in either byte order.
    has_pixels = stream.read(4) in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
    if "Rows" not in dataset and "Columns" not in dataset and not has_pixels:
        raise SkipVolume(SkipReason.TRUNCATED_HEADER, "the file ends inside the header")
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    rows, columns = _positive(dataset, "Rows"), _positive(dataset, "Columns")
    frames = int(dataset.get("NumberOfFrames") or 0)
    if frames < 0:
        raise SkipVolume(SkipReason.BAD_HEADER, f"NumberOfFrames is {frames}")
    if rows * columns > MAX_FRAME_PIXELS or frames * rows * columns > MAX_VOXELS:
        raise SkipVolume(
            SkipReason.TOO_LARGE,
            f"the header declares {frames} frames of {rows} x {columns}, more than any scanner",
        )
    bits_allocated = int(dataset.get("BitsAllocated") or 0)
    _check_pixel_format(dataset, bits_allocated)
    bits_stored = min(max(int(dataset.get("BitsStored") or bits_allocated), 1), bits_allocated)
    return DicomHeader(
        dataset=dataset,
        transfer_syntax=syntax,
        frames=frames,
        rows=rows,
        columns=columns,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        unused_low_bits=_unused_low_bits(dataset, bits_allocated, bits_stored),
        stream=stream,
        pixel_offset=offset if has_pixels else -1,
        stream_bytes=stream_bytes,
    )


def _unused_low_bits(dataset: Dataset, bits_allocated: int, bits_stored: int) -> int:
    """HighBit is the place of the highest used bit; one that cannot be is taken for the usual."""
    high_bit = int(dataset.get("HighBit") or 0)
    return high_bit + 1 - bits_stored if bits_stored <= high_bit < bits_allocated else 0


def check_sop_class(dataset: Dataset) -> None:
    """Accepts Ophthalmic Tomography only.

    Raises:
      SkipVolume: `not_oct`, with the class named; en-face images, flow volumes, height maps and
        photographs lie next to structural OCT by right, so this is an exclusion and no fault.
    """
    found = str(dataset.get("SOPClassUID") or "")
    found = found or str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    if not found:
        # Elements are stored in the order of their tags.
        if all(tag < _SOP_CLASS_TAG for tag in dataset.keys()):  # noqa: SIM118 - no values read
            raise SkipVolume(SkipReason.TRUNCATED_HEADER, "the file ends before its SOP class")
        raise SkipVolume(
            SkipReason.BAD_HEADER, f"SOPClassUID is absent; it must be {OPT_SOP_CLASS} for OCT"
        )
    if found != OPT_SOP_CLASS:
        modality = str(dataset.get("Modality") or "no modality")
        raise SkipVolume(SkipReason.NOT_OCT, f"SOP class {UID(found).name} ({modality})")


def _positive(dataset: Dataset, name: str) -> int:
    value = dataset.get(name)
    if value is None or isinstance(value, list | tuple) or int(value) <= 0:
        raise SkipVolume(SkipReason.BAD_HEADER, f"{name} is {value}")
    return int(value)


def _check_pixel_format(dataset: Dataset, bits_allocated: int) -> None:
    samples = int(dataset.get("SamplesPerPixel") or 1)
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if samples != 1 or bits_allocated not in (8, 16) or not photometric.startswith("MONOCHROME"):
        raise SkipVolume(
            SkipReason.UNSUPPORTED_PIXELS,
            f"{samples} sample(s) of {bits_allocated} bits, {photometric}; "
            "only 8 and 16 bit gray values are OCT",
        )

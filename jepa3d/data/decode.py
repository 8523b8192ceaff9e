"""The bytes of a stored record to arrays, without a protobuf library.

A record is a serialized `tf.train.Example`. A library parses it with Python's lock held, and copies
the voxels more than once, so that the threads of a loader wait for each other. Here the few fields
around the voxels are walked through, and the voxels are a view of the record's bytes.

Wire format (protobuf.dev/programming-guides/encoding): a field is a key, number << 3 | type, and a
value: type 0 a varint, type 2 a length and so many bytes. An Example is
{1: Features {1, for each name: {1: name, 2: Feature}}}; a Feature is one of {1: BytesList},
{2: FloatList}, {3: Int64List}, whose values are field 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_VARINT, _LENGTH_DELIMITED, _FLOAT = 0, 2, 5
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3


class _Field(NamedTuple):
    number: int
    value: memoryview | int


def decode_record(
    record: bytes, shape: tuple[int, ...], patch: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Arrays of a record, read-only views where they are large.

    Args:
      record: one of `jepa3d.data.records`.
      shape: voxels [D, H, W].
      patch: voxels of a token.

    Returns:
      volume uint8 [D, H, W]; foreground bool [token grid]; valid_box int32 [3, 2]; mean, std,
      float32 scalars; spacing_mm float32 [3].

    Raises:
      ValueError: the bytes are no record of this shape.
    """
    found = _features(memoryview(record))
    grid = tuple(n // p for n, p in zip(shape, patch))
    try:
        foreground = np.frombuffer(found["foreground"][0], np.uint8).reshape(grid)
        return {
            "volume": np.frombuffer(found["volume"][0], np.uint8).reshape(shape),
            "foreground": foreground.astype(bool),
            "valid_box": np.asarray(found["valid_box"], np.int32).reshape(3, 2),
            "mean": np.asarray(found["mean"], np.float32).reshape(()),
            "std": np.asarray(found["std"], np.float32).reshape(()),
            "spacing_mm": np.asarray(found["spacing_mm"], np.float32).reshape(3),
        }
    except (LookupError, TypeError, OverflowError) as error:
        raise ValueError(f"no record of a volume ({error!r})") from error


def _features(example: memoryview) -> dict[str, list]:
    """Values of each feature: views, floats or whole numbers."""
    found: dict[str, list] = {}
    for features in _submessages(example, 1):
        for entry in _submessages(features, 1):
            parts = {field.number: field.value for field in _fields(entry)}
            name, feature = parts.get(1), parts.get(2)
            if not isinstance(name, memoryview) or not isinstance(feature, memoryview):
                raise ValueError("a feature without a name or a value")
            found[str(name, "utf-8")] = _values(feature)
    return found


def _values(feature: memoryview) -> list:
    values: list = []
    for kind, content in _fields(feature):
        if not isinstance(content, memoryview):
            raise ValueError("a list of values is a number")
        for _, value in _fields(content):
            if kind == _BYTES_LIST or isinstance(value, int):
                values.append(value)
            elif kind == _FLOAT_LIST:
                values += np.frombuffer(value, "<f4").tolist()
            elif kind == _INT64_LIST:
                values += _varints(value)
    return values


def _submessages(message: memoryview, number: int) -> Iterator[memoryview]:
    for field in _fields(message):
        if field.number == number and isinstance(field.value, memoryview):
            yield field.value


def _fields(message: memoryview) -> Iterator[_Field]:
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, place = _varint(message, place)
            yield _Field(number, value)
            continue
        if wire_type == _LENGTH_DELIMITED:
            length, place = _varint(message, place)
        elif wire_type == _FLOAT:
            length = 4
        else:
            raise ValueError(f"a field of the wire type {wire_type}")
        if place + length > len(message):
            raise ValueError(
                f"a field of {length} bytes, of which {len(message) - place} are there"
            )
        yield _Field(number, message[place : place + length])
        place += length


def _varints(packed: memoryview) -> list[int]:
    values, place = [], 0
    while place < len(packed):
        value, place = _varint(packed, place)
        values.append(value)
    return values


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """The number at a place, seven bits a byte, low ones first, and the place after it."""
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("a number without an end")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            # Negative numbers are stored as their 64-bit complement.
            return value - 2**64 if value >= 2**63 else value, place

"""The PLY container: header and tables of scalar properties, binary or text.

Elements come back as structured arrays. List properties (faces of meshes) are refused in elements
that are asked for and cannot be stepped over in binary files, so that they end the reading.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splats.formats.byte_reader import ByteReader, read_whole
from training.errors import InputError

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_NAMES = {"i1": "char", "u1": "uchar", "i4": "int", "u4": "uint", "f4": "float", "f8": "double"}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "<"}
_LONGEST_HEADER = 1 << 20  # bytes: without an end a file of gigabytes would be searched for it
_END = re.compile(rb"^end_header[ \t]*\r?\n", re.MULTILINE)  # a comment may hold the word


@dataclass(frozen=True)
class PlyElement:
    """A table declared in the header; `dtype` is None where a property is a list."""

    name: str
    count: int
    dtype: np.dtype | None


@dataclass(frozen=True)
class PlyHeader:
    """`encoding` is ascii, binary_little_endian or binary_big_endian; the body starts at `size`."""

    encoding: str
    elements: tuple[PlyElement, ...]
    size: int


def read_header(data: bytes, source: str) -> PlyHeader:
    """Parses the header; InputError when it is not one."""
    if not data.startswith((b"ply\n", b"ply\r\n")):
        raise InputError(f"{source} does not start with 'ply'; give a PLY file.")
    end = _END.search(data, 0, _LONGEST_HEADER)
    if end is None:
        raise InputError(f"{source} has no end_header line; the file is cut off or not a PLY.")
    encoding = ""
    tables: list[tuple[str, int, list[tuple[str, str]] | None]] = []
    # latin-1 decodes any byte: comments may be in any encoding.
    for line in data[: end.start()].decode("latin-1").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) >= 2 and words[1] in _ORDERS:
            encoding = words[1]
        elif (
            # isdigit alone also takes characters such as ², which int refuses.
            words[0] == "element" and len(words) == 3 and words[2].isascii() and words[2].isdigit()
        ):
            tables.append((words[1], int(words[2]), []))
        elif words[0] == "property" and tables and len(words) >= 3:
            tables[-1] = _with_property(tables[-1], words, encoding, source)
        else:
            raise InputError(f"{source} has the bad PLY header line {line[:60]!r}.")
    if not encoding:
        raise InputError(f"{source} has no known PLY format line.")
    return PlyHeader(encoding, tuple(_element(table, source) for table in tables), end.end())


def _with_property(table: tuple, words: list[str], encoding: str, source: str) -> tuple:
    name, count, columns = table
    if words[1] == "list" or columns is None:
        return name, count, None
    if words[1] not in _TYPES:
        raise InputError(f"{source} has a PLY property of unknown type {words[1]!r}.")
    order = _ORDERS.get(encoding, "<")
    return name, count, [*columns, (words[2], order + _TYPES[words[1]])]


def _element(table: tuple, source: str) -> PlyElement:
    name, count, columns = table
    if columns is None:
        return PlyElement(name, count, None)
    labels = [label for label, _ in columns]
    if len(set(labels)) != len(labels):
        raise InputError(f"{source}: PLY element {name} repeats a property.")
    return PlyElement(name, count, np.dtype(columns))


def read_ply(path: Path | str, *, allow_text: bool = True) -> dict[str, np.ndarray]:
    """Every element up to the first with a list property, as structured arrays by name."""
    path = Path(path)
    data = read_whole(path)
    header = read_header(data, str(path))
    if header.encoding == "ascii" and not allow_text:
        raise InputError(
            f"{path} is a text PLY; splat files are binary, so convert it to "
            "binary_little_endian first."
        )
    if header.encoding == "ascii":
        return _read_text(data[header.size :], header, path)
    reader = ByteReader(data, str(path))
    reader.position = header.size
    tables = {}
    for element in header.elements:
        if element.dtype is None:
            return tables
        label = f"PLY element {element.name} ({element.count} rows)"
        if element.dtype.itemsize:
            tables[element.name] = reader.take_array(element.dtype, element.count, label)
    # Some writers end with a newline; anything else means that the header miscounts.
    if data[reader.position :].strip():
        reader.finish("rows")
    return tables


def _read_text(body: bytes, header: PlyHeader, path: Path) -> dict[str, np.ndarray]:
    lines = body.decode("latin-1").splitlines()
    tables, start = {}, 0
    for element in header.elements:
        if element.dtype is None:
            break
        rows = lines[start : start + element.count]
        if len(rows) < element.count:
            raise InputError(
                f"{path} claims {element.count} rows of {element.name} and holds {len(rows)}; the "
                "file is cut off."
            )
        try:
            values = [tuple(float(word) for word in row.split()) for row in rows]
            tables[element.name] = np.array(values, element.dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{path}: a row of {element.name} is malformed ({error}).") from error
        start += element.count
    return tables


def write_ply(path: Path | str, tables: dict[str, np.ndarray]) -> None:
    """Writes structured arrays as one binary little-endian PLY."""
    lines = ["ply", "format binary_little_endian 1.0"]
    for name, table in tables.items():
        lines.append(f"element {name} {len(table)}")
        for label in table.dtype.names or ():
            lines.append(f"property {_NAMES[table.dtype[label].str[1:]]} {label}")
    header = "\n".join([*lines, "end_header"]) + "\n"
    parts = [header.encode("ascii")]
    for table in tables.values():
        # Built anew: a selection of columns keeps the others as padding, which no file may hold.
        names = table.dtype.names or ()
        packed = np.dtype([(name, table.dtype[name].newbyteorder("<")) for name in names])
        parts.append(table.astype(packed).tobytes())
    Path(path).write_bytes(b"".join(parts))

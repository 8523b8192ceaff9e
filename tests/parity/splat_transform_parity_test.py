"""Our splat files in PlayCanvas' splat-transform, where that program is installed.

`npm install @playcanvas/splat-transform`, then set PODVISION_SPLAT_TRANSFORM to its executable or
put it on PATH.
"""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from splats.formats import read_cloud, write_cloud
from splats.formats.morton import morton_order
from splats.formats.spz import write_spz
from tests.splats.formats.clouds import covariances, differences, random_cloud

PROGRAM = os.environ.get("PODVISION_SPLAT_TRANSFORM") or shutil.which("splat-transform")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not PROGRAM, reason="splat-transform is not installed"),
]


def _convert(source: Path, target: Path, *options: str) -> Path:
    command = [str(PROGRAM), "-q", "-w", str(source), str(target), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return target


@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply", ".spz", ".splat"])
def test_it_reads_what_we_write(tmp_path, suffix):
    write_cloud(tmp_path / f"ours{suffix}", random_cloud())
    ours = read_cloud(tmp_path / f"ours{suffix}")
    theirs = read_cloud(_convert(tmp_path / f"ours{suffix}", tmp_path / "theirs.ply"))
    assert len(theirs) == len(ours)
    error = differences(ours, theirs)
    assert error["mean"] <= 1e-6 and error["log_scale"] <= 1e-6 and error["higher"] <= 1e-6
    # Bytes 0 and 255 of opacity are infinite logits there and finite here.
    assert error["opacity"] <= 0.5 / 255 + 1e-6 and error["constant"] <= 1e-5
    assert error["turn"] <= (1e-2 if suffix == ".splat" else 1e-6)


@pytest.mark.parametrize("suffix", [".compressed.ply", ".spz", ".glb"])
def test_we_read_what_it_writes(tmp_path, suffix):
    cloud = random_cloud()
    write_cloud(tmp_path / "a.ply", cloud)
    options = ("--spz-version", "3") if suffix == ".spz" else ()  # version 4: below
    theirs = read_cloud(_convert(tmp_path / "a.ply", tmp_path / f"theirs{suffix}", *options))
    write_cloud(tmp_path / f"ours{suffix}", cloud)
    ours = read_cloud(tmp_path / f"ours{suffix}")
    assert len(theirs) == len(ours)
    if suffix == ".compressed.ply":
        ours, theirs = (c.select(morton_order(c.means)) for c in (ours, theirs))
    error = differences(ours, theirs)
    assert error["mean"] <= 1e-6 and error["log_scale"] <= 1e-6
    assert error["constant"] <= 1e-5 and error["opacity"] <= 1e-6
    # One code of 1/32 where float32 and float64 arithmetic truncate differently.
    assert error["higher"] <= 1 / 32
    np.testing.assert_allclose(covariances(ours), covariances(theirs), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("version", [3, 4])
def test_our_spz_is_its_spz_byte_for_byte(tmp_path, version, degree):
    """Its .spz code is the format's reference library; frames are compared unpacked."""
    cloud = random_cloud(degree=degree)
    write_cloud(tmp_path / "a.ply", cloud)
    theirs = _convert(tmp_path / "a.ply", tmp_path / "b.spz", "--spz-version", str(version))
    if version == 4:
        pytest.importorskip("zstandard")
    write_spz(tmp_path / "a.spz", cloud, version)
    assert _unpacked(tmp_path / "a.spz") == _unpacked(theirs)


def _unpacked(path: Path) -> list[bytes]:
    data = path.read_bytes()
    if data[:4] != b"NGSP":
        return [gzip.decompress(data)]
    import zstandard

    streams = data[15]
    sizes = struct.unpack_from(f"<{2 * streams}Q", data, 32)
    position, result = 32 + 16 * streams, [data[:32], struct.pack(f"<{streams}Q", *sizes[1::2])]
    for packed in sizes[::2]:
        frame = data[position : position + packed]
        result.append(zstandard.ZstdDecompressor().decompress(frame))
        position += packed
    assert position == len(data)
    return result


@pytest.mark.parametrize("degree", [0, 3])
def test_it_reads_our_spz_of_version_4(tmp_path, degree):
    pytest.importorskip("zstandard")
    write_spz(tmp_path / "ours.spz", random_cloud(degree=degree), 4)
    ours = read_cloud(tmp_path / "ours.spz")
    theirs = read_cloud(_convert(tmp_path / "ours.spz", tmp_path / "theirs.ply"))
    error = differences(ours, theirs)
    assert error.pop("opacity") <= 0.5 / 255 + 1e-6
    assert len(theirs) == len(ours) and max(error.values()) <= 1e-5

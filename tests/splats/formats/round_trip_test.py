"""Every format: round trips within the stated steps, samples of other software, damaged files."""

from __future__ import annotations

import importlib.util
import struct
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from splats.formats import FORMATS, GaussianCloud, read_cloud, write_cloud
from splats.formats.inria_ply import write_inria_ply
from splats.formats.morton import morton_order
from splats.formats.ply_container import read_ply, write_ply
from splats.formats.spz import write_spz
from splats.formats.zstd import compress
from tests.splats.formats.clouds import covariances, differences, random_cloud
from training.errors import ConfigError, InputError

# Largest error of each quantity: half a quantization step (and float32 rounding).
HALF_BYTE = 0.5 / 255 + 1e-6
BOUNDS = {
    ".ply": dict.fromkeys(("mean", "log_scale", "turn", "opacity", "constant", "higher"), 0.0),
    ".glb": {
        "mean": 0.0,
        "log_scale": 1e-6,
        "turn": 1e-7,
        "opacity": 1e-7,
        "constant": 0.0,
        "higher": 0.0,
    },
    ".spz": {
        "mean": 0.5 / 4096,
        "log_scale": 0.5 / 16 + 1e-6,
        "turn": 2e-3,
        "opacity": HALF_BYTE,
        "constant": 0.5 / (0.15 * 255) + 1e-6,
        "higher": 8.5 / 128,
    },
}


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("suffix", BOUNDS)
def test_round_trips_stay_within_half_a_step(tmp_path, suffix, degree):
    cloud = random_cloud(degree=degree)
    write_cloud(tmp_path / f"a{suffix}", cloud)
    found = differences(cloud, read_cloud(tmp_path / f"a{suffix}"))
    for name, bound in BOUNDS[suffix].items():
        assert found[name] <= bound, name


@pytest.mark.parametrize("degree", range(4))
def test_compressed_ply_keeps_every_gaussian_within_its_chunks_steps(tmp_path, degree):
    cloud = random_cloud(700, degree)
    write_cloud(tmp_path / "a.compressed.ply", cloud)
    cloud = cloud.select(morton_order(cloud.means))
    found = read_cloud(tmp_path / "a.compressed.ply")
    for start in range(0, 700, 256):
        rows = slice(start, start + 256)
        for name in ("means", "log_scales"):
            values = getattr(cloud, name)[rows]
            step = np.ptp(values, axis=0) / np.array([2047, 1023, 2047])
            error = np.abs(values - getattr(found, name)[rows]).max(axis=0)
            assert (error <= 0.5 * step + 1e-5).all()
        color = cloud.harmonics[rows, 0]
        step = np.ptp(color, axis=0) / 255
        assert (np.abs(color - found.harmonics[rows, 0]).max(axis=0) <= 0.5 * step + 1e-5).all()
    error = differences(cloud, found)
    assert error["opacity"] <= HALF_BYTE and error["turn"] < 3e-3 and error["higher"] <= 1 / 64


def test_splat_keeps_geometry_and_base_color(tmp_path):
    cloud = random_cloud()
    write_cloud(tmp_path / "a.splat", cloud)
    found = read_cloud(tmp_path / "a.splat")
    assert found.degree == 0
    flat = GaussianCloud(
        cloud.means,
        cloud.log_scales,
        cloud.quaternions,
        cloud.opacity_logits,
        np.clip(cloud.harmonics[:, :1], -0.5 / 0.2821, 0.5 / 0.2821),
    )
    error = differences(flat, found)
    assert error["mean"] == 0 and error["log_scale"] < 1e-6 and error["opacity"] <= HALF_BYTE
    assert error["constant"] <= HALF_BYTE / 0.28209 + 1e-5 and error["turn"] < 1.2e-2


@pytest.mark.parametrize("suffix", FORMATS)
def test_rotation_and_size_describe_the_same_ellipsoid(tmp_path, suffix):
    cloud = random_cloud(300)
    write_cloud(tmp_path / f"a{suffix}", cloud)
    found = read_cloud(tmp_path / f"a{suffix}")
    if suffix == ".compressed.ply":
        cloud = cloud.select(morton_order(cloud.means))
    first, second = covariances(cloud), covariances(found)
    error = np.linalg.norm(first - second, axis=(1, 2)) / np.linalg.norm(first, axis=(1, 2))
    assert error.max() < 0.08


def test_ply_layout_is_the_published_one(tmp_path):
    cloud = random_cloud(3)
    write_cloud(tmp_path / "a.ply", cloud)
    table = read_ply(tmp_path / "a.ply")["vertex"]
    rest = [f"f_rest_{i}" for i in range(45)]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity"]
    expected += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert list(table.dtype.names or ()) == expected
    # Channel-major: f_rest_15 is the first green coefficient of degree 1.
    np.testing.assert_array_equal(table["f_rest_15"], cloud.harmonics[:, 1, 1])
    np.testing.assert_array_equal(table["rot_0"], cloud.quaternions[:, 0])
    assert table.dtype.itemsize == 62 * 4


def test_ply_properties_may_come_in_any_order_with_others_between(tmp_path):
    cloud = random_cloud(20)
    write_inria_ply(tmp_path / "a.ply", cloud, normals=False)
    table = read_ply(tmp_path / "a.ply")["vertex"]
    names = list(reversed(table.dtype.names or ()))
    other = np.zeros(20, [("segment", "<i4"), *((name, "<f8") for name in names)])
    for name in names:
        other[name] = table[name]
    write_ply(tmp_path / "b.ply", {"vertex": other})
    assert max(differences(cloud, read_cloud(tmp_path / "b.ply")).values()) == 0


def test_text_and_foreign_plys_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "a.ply"
    path.write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n")
    with pytest.raises(InputError, match="text PLY"):
        read_cloud(path)
    write_ply(path, {"vertex": np.zeros(2, [("x", "<f4"), ("y", "<f4"), ("z", "<f4")])})
    with pytest.raises(InputError, match="lacks the properties f_dc_0"):
        read_cloud(path)
    path.write_bytes(b"solid")
    with pytest.raises(InputError, match="does not start with 'ply'"):
        read_cloud(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_cloud(tmp_path / "none.ply")
    with pytest.raises(ConfigError, match="no known splat format"):
        write_cloud(tmp_path / "a.obj", random_cloud(1))


def test_enormous_counts_are_refused_without_allocating(tmp_path):
    path = tmp_path / "a.ply"
    write_cloud(path, random_cloud(4))
    path.write_bytes(path.read_bytes().replace(b"vertex 4", b"vertex 1000000000000"))
    with pytest.raises(InputError, match="are left"):
        read_cloud(path)
    path = tmp_path / "a.spz"
    path.write_bytes(struct.pack("<4sIIBBBB", b"NGSP", 3, 90_000_000, 3, 12, 0, 0))
    with pytest.raises(InputError, match="positions needs 810000000 bytes"):
        read_cloud(path)


def test_spz_refuses_positions_that_24_bits_cannot_hold(tmp_path):
    cloud = random_cloud(3)
    cloud.means[1, 0] = 2049
    with pytest.raises(InputError, match="2048"):
        write_cloud(tmp_path / "a.spz", cloud)


def test_equal_clouds_make_equal_files(tmp_path):
    for suffix in FORMATS:
        for name in ("a", "b"):
            write_cloud(tmp_path / f"{name}{suffix}", random_cloud(300))
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_empty_clouds_are_written_or_refused_but_never_crash(tmp_path):
    empty = random_cloud(0)
    for suffix in (".ply", ".splat", ".spz"):
        write_cloud(tmp_path / f"a{suffix}", empty)
        assert len(read_cloud(tmp_path / f"a{suffix}")) == 0
    for suffix in (".compressed.ply", ".glb"):
        with pytest.raises(InputError, match="no Gaussian"):
            write_cloud(tmp_path / f"a{suffix}", empty)


def test_extreme_values_stay_finite_in_every_format(tmp_path):
    cloud = random_cloud(300)
    cloud.opacity_logits[:2] = [-200, 200]
    cloud.log_scales[:2] = [[-90, 30, 0], [5, 5, 5]]
    cloud.harmonics[:2] = [[[-9, 9, 3]], [[40, -40, 0]]]
    for suffix in FORMATS:
        write_cloud(tmp_path / f"a{suffix}", cloud)
        found = read_cloud(tmp_path / f"a{suffix}")
        for name in ("means", "log_scales", "quaternions", "opacity_logits", "harmonics"):
            assert np.isfinite(getattr(found, name)).all(), (suffix, name)


def test_morton_order_keeps_neighbors_together():
    points = np.random.default_rng(0).uniform(size=(2000, 3))
    order = morton_order(points)
    assert sorted(order.tolist()) == list(range(2000))
    step = np.linalg.norm(np.diff(points[order], axis=0), axis=1).mean()
    assert step < 0.25 * np.linalg.norm(np.diff(points, axis=0), axis=1).mean()
    corners = np.array([[1, 1, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]], float)
    assert morton_order(corners).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("suffix", FORMATS)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_never_crash_the_readers(tmp_path, suffix, data):
    path = tmp_path / f"a{suffix}"
    write_cloud(path, random_cloud(5, degree=1))
    content = bytearray(path.read_bytes())
    if suffix == ".spz" and data.draw(st.booleans()):
        import gzip

        content = bytearray(gzip.decompress(bytes(content)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(bytes(content[:cut]))
    try:
        read_cloud(path)
    except InputError as error:
        assert str(path) in str(error)


@pytest.fixture(params=["zstandard", "compression.zstd"])
def zstd(request, monkeypatch):
    """One of the two implementations alone; `backports.zstd` may stand in for Python 3.14's."""
    names = [request.param] + ["backports.zstd"] * (request.param == "compression.zstd")
    found = next((name for name in names if importlib.util.find_spec(name.split(".")[0])), None)
    module = pytest.importorskip(found or request.param, reason=f"{request.param} is not here")
    for name in ("zstandard", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, module if name == request.param else None)


@pytest.mark.parametrize("degree", range(4))
def test_spz_4_holds_the_same_gaussians_as_spz_3(tmp_path, zstd, degree):
    cloud = random_cloud(degree=degree)
    write_spz(tmp_path / "3.spz", cloud)
    write_spz(tmp_path / "4.spz", cloud, 4)
    third, fourth = read_cloud(tmp_path / "3.spz"), read_cloud(tmp_path / "4.spz")
    assert max(differences(third, fourth).values()) == 0
    header = (tmp_path / "4.spz").read_bytes()[:32]
    streams = 6 if degree else 5
    assert header == struct.pack("<4sIIBBBBI12x", b"NGSP", 4, 700, degree, 12, 0, streams, 32)


def test_an_empty_cloud_has_no_streams(tmp_path, zstd):
    write_spz(tmp_path / "a.spz", random_cloud(0, degree=3), 4)
    assert len((tmp_path / "a.spz").read_bytes()) == 32
    assert len(read_cloud(tmp_path / "a.spz")) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-3], "is damaged at byte"),
        (lambda data: data[:14] + b"\2" + data[15:], "extensions"),
        (lambda data: data[:15] + b"\4" + data[16:], "has streams of"),
        (lambda data: data[:16] + struct.pack("<I", 10**9) + data[20:], "outside of the file"),
        (lambda data: data[:40] + struct.pack("<Q", 10**15) + data[48:], "has streams of"),
        (lambda data: data[:112] + b"\0\0\0\0" + data[116:], "damaged"),
        # A frame of another stream's: longer, and shorter, than the table says.
        (lambda data: _with_first_frame(data, bytes(10**6)), "more than 45 bytes"),
        (lambda data: _with_first_frame(data, bytes(44)), "has 44 bytes, expected 45"),
    ],
)
def test_a_damaged_spz_4_is_one_sentence(tmp_path, zstd, change, said):
    path = tmp_path / "a.spz"
    write_spz(path, random_cloud(5, degree=0), 4)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=said) as caught:
        read_cloud(path)
    assert str(path) in str(caught.value)


def _with_first_frame(data: bytes, content: bytes) -> bytes:
    """`data` with its first frame, after the 32 + 5 * 16 bytes of header and table, replaced."""
    (packed,) = struct.unpack_from("<Q", data, 32)
    frame = compress(content)
    return data[:32] + struct.pack("<Q", len(frame)) + data[40:112] + frame + data[112 + packed :]


@pytest.mark.parametrize("name", ["v2", "v3", "raw", "v4"])
def test_samples_of_the_reference_packer_hold_the_same_four_gaussians(data_root, name):
    if name == "v4":
        pytest.importorskip("zstandard", reason="zstandard is not installed (extra spz)")
    cloud = read_cloud(data_root / "splats" / "formats" / f"minimal-{name}.spz")
    assert len(cloud) == 4 and cloud.degree == 0
    np.testing.assert_allclose(np.abs(cloud.means).max(axis=0), [1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(np.exp(cloud.log_scales), 0.1, rtol=0.02)
    np.testing.assert_allclose(np.abs(cloud.quaternions[:, 0]), 1, atol=1e-4)
    np.testing.assert_allclose(1 / (1 + np.exp(-cloud.opacity_logits)), 0.9, atol=0.003)


def test_version_4_without_zstd_names_the_package(tmp_path, monkeypatch):
    for name in ("zstandard", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "a.spz"
    with pytest.raises(InputError, match=r"podvision\[spz\]"):
        write_spz(path, random_cloud(1), 4)
    path.write_bytes(struct.pack("<4sIIBBBBI12x", b"NGSP", 4, 1, 0, 12, 0, 5, 32))
    path.write_bytes(path.read_bytes() + struct.pack("<10Q", 0, 9, 0, 1, 0, 3, 0, 3, 0, 4))
    with pytest.raises(InputError, match=r"podvision\[spz\]"):
        read_cloud(path)
    with pytest.raises(ConfigError, match="version 2"):
        write_spz(path, random_cloud(1), 2)


def test_splat_sample_is_read(data_root):
    cloud = read_cloud(data_root / "splats" / "formats" / "minimal.splat")
    expected = [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(cloud.means, expected)
    np.testing.assert_allclose(np.exp(cloud.log_scales), 0.1, rtol=1e-6)


def test_nearest_neighbors_survive_compression(tmp_path):
    """A viewer sees the same cloud: every decoded mean is nearest to its own original."""
    cloud = random_cloud(400)
    write_cloud(tmp_path / "a.compressed.ply", cloud)
    found = read_cloud(tmp_path / "a.compressed.ply")
    _, nearest = KDTree(cloud.means).query(found.means)
    assert (nearest == morton_order(cloud.means)).mean() > 0.99


def test_a_ply_whose_header_counts_too_few_rows_or_talks_of_its_end(tmp_path):
    write_cloud(tmp_path / "a.ply", random_cloud(6))
    whole = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "b.ply").write_bytes(whole.replace(b"vertex 6", b"vertex 5", 1))
    with pytest.raises(InputError, match=r"damaged at byte \d+: \d+ bytes follow"):
        read_cloud(tmp_path / "b.ply")
    comment = b"comment before end_header comes this\nelement vertex"
    (tmp_path / "c.ply").write_bytes(whole.replace(b"element vertex", comment, 1) + b"\n")
    assert len(read_cloud(tmp_path / "c.ply")) == 6
    (tmp_path / "d.ply").write_bytes(whole.replace(b"vertex 6", "vertex \u00b3".encode("latin-1")))
    with pytest.raises(InputError, match="bad PLY header line"):
        read_cloud(tmp_path / "d.ply")

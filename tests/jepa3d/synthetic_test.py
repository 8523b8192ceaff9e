"""The phantom looks like a retina and its tree holds what preparation has to deal with."""

from __future__ import annotations

import csv
import time

import numpy as np
import pytest

from jepa3d.data import SkipVolume, read_volume
from jepa3d.phantom import DRUSEN, Disease, retina
from jepa3d.synthetic import SCANNERS, write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree"), participants=4)


def test_the_foveal_pit_is_a_dip_of_the_inner_surface():
    volume = retina(np.random.default_rng(0), (32, 192, 128), pit=0.7).astype(float)
    band = volume[14:18].mean(axis=0)
    surface = np.argmax(band > 100, axis=0)
    assert surface[60:68].mean() > surface[20:40].mean() + 5


def test_left_and_right_eyes_are_mirror_images():
    right = retina(np.random.default_rng(1), (16, 96, 64))
    left = retina(np.random.default_rng(1), (16, 96, 64), left_eye=True)
    mirrored = np.corrcoef(left[:, :, ::-1].ravel(), right.ravel())[0, 1]
    assert mirrored > np.corrcoef(left.ravel(), right.ravel())[0, 1]


def test_files_read_back_with_their_geometry(tree):
    for scanner in SCANNERS:
        path = next((tree / "retinal_oct").rglob(f"{scanner.folder}/*/100[1-4]_*_l_*.dcm"))
        volume = read_volume(path)
        assert volume.metadata["scanner"] == scanner.folder
        assert volume.metadata["laterality"] == "L"
        np.testing.assert_allclose(volume.spacing_mm, (6 / 16, 0.01, 6 / 128), rtol=1e-3)


def test_faulty_files_are_of_every_kind(tree):
    reasons = set()
    for path in tree.rglob("*.dcm"):
        try:
            read_volume(path)
        except SkipVolume as skip:
            reasons.add(skip.reason.value)
    assert reasons == {"not_oct", "scan_pattern", "truncated_pixel_data"}


def test_the_tree_is_a_function_of_its_seed(tree, tmp_path):
    again = write_tree(tmp_path / "again", participants=4)
    files = sorted(p.relative_to(tree) for p in tree.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert all((tree / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_a_small_tree_takes_well_under_a_second_of_cpu(tmp_path):
    start = time.process_time()
    write_tree(tmp_path / "tree", participants=4, faulty_files=False)
    assert time.process_time() - start < 3.0


def drawn(**disease):
    shape = (32, 192, 128)
    return retina(np.random.default_rng(2), shape, pit=0.0, disease=Disease(**disease))


def test_a_healthy_retina_is_the_same_with_the_word_for_it():
    plain = retina(np.random.default_rng(2), (32, 192, 128), pit=0.0)
    np.testing.assert_array_equal(plain, drawn())


def test_outer_loss_takes_tissue_at_the_fovea_only():
    """The inner surface sinks toward the membrane that stays: by 34 % of the thickness."""
    healthy, sick = drawn(), drawn(outer_loss=1.0)

    def surface(volume, frame, column):
        band = volume[frame - 1 : frame + 2, :, column - 2 : column + 3].mean(axis=(0, 2))
        return int(np.argmax(band > 100))

    # 0.34 of the retina's thickness of 0.17, in 192 rows.
    assert abs(surface(sick, 16, 64) - surface(healthy, 16, 64) - 0.34 * 0.17 * 192) <= 2
    assert surface(sick, 2, 5) == surface(healthy, 2, 5)


def test_larger_drusen_change_more_of_the_outer_layers():
    healthy = drawn().astype(float)
    changed = []
    for name in ("small", "medium", "large"):
        sick = retina(np.random.default_rng(2), (32, 192, 128), pit=0.0, disease=DRUSEN[name])
        difference = np.abs(sick - healthy)
        assert difference[:, :, :8].mean() < 0.02 * difference[:, :, 48:80].mean()  # near the fovea
        changed.append(difference.sum())
    assert 0 < changed[0] < changed[1] < changed[2]


def test_the_participants_table_says_who_is_ill(tmp_path):
    tree = write_tree(tmp_path, participants=40, shape=(4, 16, 16), diseased=True)
    with open(tree / "participants.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["drusen"] for row in rows} == set(DRUSEN)
    assert {row["outer_loss"] for row in rows} == {"no", "yes"}
    assert all(0.26 < float(row["thickness"]) < 0.39 for row in rows)

"""The probe against scikit-learn's definitions, written out: ridge, ROC, folds."""

from __future__ import annotations

import numpy as np
import pytest

from jepa3d.labels import Labels, read_labels
from jepa3d.probe import auroc, fold_of, probe, ridge
from training.errors import ConfigError, InputError


def labels_of(values, classes=("no", "yes"), known=None, groups=None):
    values = np.asarray(values, np.float64)
    known = np.ones(len(values), bool) if known is None else known
    groups = np.arange(len(values)) if groups is None else groups
    return Labels("drusen", known, values, tuple(classes), groups)


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 5, 40).astype(float)  # with many ties
    positive = generator.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    np.testing.assert_allclose(auroc(scores, positive), np.mean(pairs), rtol=1e-12)


def test_ridge_is_the_least_squares_solution_where_it_needs_no_shrinking():
    generator = np.random.default_rng(1)
    x, weights = generator.normal(size=(200, 5)), generator.normal(size=(5, 2))
    y = x @ weights + 3.0
    asked = generator.normal(size=(7, 5))
    np.testing.assert_allclose(ridge(x, y, asked), asked @ weights + 3.0, atol=2e-2)


def test_ridge_of_pure_noise_says_about_the_mean():
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(60, 300)), generator.normal(size=(60, 1))
    said = ridge(x, y, generator.normal(size=(500, 300)))
    assert np.std(said) < 0.5 * np.std(y)


def test_a_constant_feature_changes_nothing():
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(30, 4)), generator.normal(size=(30, 1))
    asked = generator.normal(size=(5, 4))
    more = np.concatenate([x, np.full((30, 1), 0.1)], axis=1)
    asked_more = np.concatenate([asked, np.full((5, 1), 123.0)], axis=1)
    np.testing.assert_allclose(ridge(more, y, asked_more), ridge(x, y, asked), rtol=1e-9)


def test_both_eyes_of_a_person_are_in_one_fold_and_labels_in_all():
    groups = np.repeat(np.arange(20), 2)
    values = np.repeat(np.arange(20) % 4 == 0, 2).astype(float)
    fold = fold_of(groups, values, 5)
    assert all(len(set(fold[groups == person])) == 1 for person in range(20))
    assert [values[fold == k].sum() for k in range(5)] == [2.0] * 5


def test_planted_labels_are_found_and_others_are_at_chance():
    generator = np.random.default_rng(4)
    features = generator.normal(size=(120, 16))
    planted = (features @ generator.normal(size=16) > 0).astype(float)
    random = (generator.random(120) < 0.5).astype(float)
    assert probe(features, labels_of(planted)) > 0.9
    assert abs(probe(features, labels_of(random)) - 0.5) < 0.2


def test_a_person_learned_by_heart_is_no_success():
    """Each person's two volumes have one vector: across folds it tells nothing of the label."""
    generator = np.random.default_rng(5)
    people = np.repeat(np.arange(60), 2)
    features = generator.normal(size=(60, 30))[people]
    label = (generator.random(60) < 0.5).astype(float)[people]
    assert abs(probe(features, labels_of(label, groups=people)) - 0.5) < 0.2


def test_a_measurement_is_scored_by_its_explained_variance():
    generator = np.random.default_rng(6)
    features = generator.normal(size=(150, 6))
    exact = features @ generator.normal(size=6)
    noisy = exact + exact.std() * generator.normal(size=150)
    assert probe(features, labels_of(exact, classes=())) > 0.98
    assert 0.35 < probe(features, labels_of(noisy, classes=())) < 0.65


def test_volumes_without_a_label_are_left_out():
    generator = np.random.default_rng(7)
    features = generator.normal(size=(80, 4))
    values = (features[:, 0] > 0).astype(float)
    known = np.arange(80) < 60
    whole = probe(features[:60], labels_of(values[:60]))
    assert probe(features, labels_of(values, known=known)) == whole


VOLUMES = [{"participant": str(n // 2), "laterality": "RL"[n % 2]} for n in range(20)]


def table(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return str(path)


def test_labels_go_to_both_eyes_or_to_one(tmp_path):
    rows = "\n".join(f"{person},{'ab'[person % 2]}" for person in range(9))
    (both,) = read_labels(table(tmp_path, f"participant,kind\n{rows}\n"), ["kind"], VOLUMES)
    assert both.classes == ("a", "b")
    assert both.known.tolist() == [True] * 18 + [False] * 2
    assert both.values[:6].tolist() == [0, 0, 1, 1, 0, 0]
    rows = "\n".join(f"{person},OD,{'ab'[person % 2]}" for person in range(9))
    path = table(tmp_path, f"person_id,laterality,kind\n{rows}\n")
    (right,) = read_labels(path, ["kind"], VOLUMES)
    assert right.known.tolist() == [True, False] * 9 + [False] * 2


def test_many_numbers_are_a_measurement(tmp_path):
    rows = "\n".join(f"{person},{person * 1.5}" for person in range(11))
    volumes = [{"participant": str(person), "laterality": ""} for person in range(11)]
    (found,) = read_labels(table(tmp_path, f"participant,age\n{rows}\n"), ["age"], volumes)
    assert found.classes == () and found.values[4] == 6.0


@pytest.mark.parametrize(
    "text, column, error, words",
    [
        ("name,kind\n1,a\n", "kind", InputError, "no column participant"),
        ("participant,kind\n", "kind", InputError, "no rows"),
        ("participant,kind\n1,a\n", "kinds", ConfigError, "did you mean kind"),
        ("participant,kind\n1,a\n1,b\n", "kind", InputError, "two values"),
        ("participant,kind\n77,a\n", "kind", InputError, "kind of 0 of the 20"),
        (
            "participant,kind\n" + "".join(f"{n},a\n" for n in range(9)),
            "kind",
            InputError,
            "nothing can be told apart",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, column, error, words):
    with pytest.raises(error, match=words):
        read_labels(table(tmp_path, text), [column], VOLUMES)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_labels(str(tmp_path / "none.csv"), ["kind"], VOLUMES)

"""Skill against brute force, and what a predictor that sees nothing can reach at best."""

from __future__ import annotations

import numpy as np
import pytest

from jepa3d import skill
from jepa3d.evaluation import EvenlyChosen
from jepa3d.skill import TokenErrors, TokenTargets, constant_errors, sampled_positions, skills
from training.errors import InputError

VOLUMES, POSITIONS, WIDTH = 40, 30, 5


@pytest.fixture
def generator():
    return np.random.default_rng(3)


def skewed(generator, volumes):
    """Targets whose mean is no good guess: retina at a position in some volumes, else vitreous."""
    share = np.linspace(0.1, 0.9, POSITIONS)[None, :, None]
    is_retina = generator.random((volumes, POSITIONS, 1)) < share
    place = generator.normal(size=(1, POSITIONS, WIDTH))
    return place + 2.0 * is_retina + 0.3 * generator.normal(size=(volumes, POSITIONS, WIDTH))


def test_constants_are_medians_with_and_without_the_scored_volume(generator):
    target = skewed(generator, 9)
    chosen = generator.random((9, POSITIONS)) < 0.7
    found = constant_errors(target, chosen, 6)
    by_heart = constant_errors(target, chosen, 6, by_heart=True)
    for volume in range(6):
        for place in range(POSITIONS):
            inside = np.flatnonzero(chosen[:, place])
            if not chosen[volume, place] or len(inside) < skill.LEAST:
                assert np.isnan(found[volume, place])
                continue
            errors = [
                np.abs(target[volume, place] - np.median(target[fitted, place], axis=0)).mean()
                for fitted in (inside, inside[inside != volume])
            ]
            assert by_heart[volume, place] == pytest.approx(errors[0])
            assert found[volume, place] == pytest.approx(np.mean(errors))


def scored(target, predicted, hidden=None):
    """Targets and errors of a model that says `predicted`, in two mask sets."""
    everywhere = np.ones(target.shape[:2], bool)
    error = np.abs(target - predicted).mean(axis=-1)
    if hidden is None:
        hidden = np.ones((len(target), 2, POSITIONS), bool)
    retina = target.mean(axis=-1) > 1.0
    errors = TokenErrors(hidden, np.where(hidden, error[:, None], 0.0))
    return TokenTargets(target, everywhere, retina), errors


def rest(target):
    retina = target.mean(axis=-1) > 1.0
    return TokenTargets(target, np.ones(target.shape[:2], bool), retina)


def test_no_constant_predictor_has_skill_not_even_the_best_that_could_be(generator):
    """The medians of 8,000 volumes, which no run sees, and those of the training volumes."""
    many = skewed(generator, 8000)
    best = np.median(many, axis=0)
    pool = many[:VOLUMES]
    for predicted in (best, np.median(pool, axis=0), pool.mean(axis=0)):
        held_out = many[VOLUMES : VOLUMES + 200]
        values = skills(*scored(held_out, predicted), rest(pool), by_heart=False)
        assert values["skill_position"] <= 0.01
        assert values["skill_retina"] <= 0.01


def test_the_mean_would_have_been_an_easy_baseline(generator):
    """Against the mean of each position, the medians alone would look like learning."""
    target = skewed(generator, 200)
    mean_error = np.abs(target - target.mean(axis=0)).mean()
    median_error = np.abs(target - np.median(target, axis=0)).mean()
    assert 1 - median_error / mean_error > 0.05


def test_volumes_learned_by_heart_are_compared_with_their_own_medians(generator):
    target = skewed(generator, 4)
    inputs = scored(target, np.median(target, axis=0))
    assert skills(*inputs, None, by_heart=True)["skill_position"] == pytest.approx(0.0, abs=1e-6)
    assert skills(*inputs, None, by_heart=False)["skill_position"] > 0.1


def test_half_the_error_of_the_constants_is_a_skill_of_one_half(generator):
    target = skewed(generator, VOLUMES)
    constant = np.median(target, axis=0)
    values = skills(*scored(target, 0.5 * (target + constant)), None, by_heart=True)
    assert values["skill_position"] == pytest.approx(0.5, abs=1e-6)


def test_only_predicted_covered_tokens_count(generator):
    target = skewed(generator, VOLUMES)
    hidden = generator.random((VOLUMES, 2, POSITIONS)) < 0.5
    tokens, errors = scored(target, np.median(target, axis=0), hidden)
    padding = np.zeros((VOLUMES, POSITIONS), bool)
    padding[:, ::3] = True
    tokens = tokens._replace(covered_VxP=~padding, retina_VxP=tokens.retina_VxP & ~padding)
    wild = errors._replace(error_VxSxP=errors.error_VxSxP + 1e3 * (padding[:, None] | ~hidden))
    assert skills(tokens, wild, None, True) == skills(tokens, errors, None, True)


def test_nothing_to_score_is_no_skill(generator):
    tokens, errors = scored(skewed(generator, 2), 0.0)
    assert skills(tokens, errors, None, False) == {"skill_position": 0.0, "skill_retina": 0.0}


def test_positions_are_all_tokens_or_as_many_as_fit():
    np.testing.assert_array_equal(sampled_positions(256, 96, 64), np.arange(256))
    few = sampled_positions(9216, 384, 64)
    assert len(few) == skill.VALUES // (64 * 384) and (np.diff(few) > 0).all()
    assert few[-1] < 9216 and len(sampled_positions(9216, 384, 10**6)) == 16


def test_a_damaged_training_record_does_not_end_an_evaluation():
    class Source:
        fingerprint = "ten, of which one is damaged"

        def __len__(self):
            return 10

        def __getitem__(self, index):
            if index == 4:
                raise InputError("record 4 is damaged")
            return {"number": np.int32(index)}

        def identity(self, index):
            return str(index)

    chosen = EvenlyChosen(Source(), 5)
    assert [int(chosen[index]["number"]) for index in range(len(chosen))] == [0, 2, 5, 6, 8]

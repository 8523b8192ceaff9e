"""Windows of phases: what would never act is refused, with the arithmetic."""

from __future__ import annotations

import pytest

from hand_object.config import Config
from hand_object.loss_config import (
    BalanceConfig,
    ContactPhase,
    PhasesConfig,
    SdsPhase,
    TemporalPhase,
)
from hand_object.phases import check_phases, phase_table, windows
from training.config import Duration
from training.errors import ConfigError
from training.typed import build

EPOCHS = 30


def classic(**changes) -> PhasesConfig:
    """SDS for 2000 updates, contact from then on, smoothness from update 5000 on."""
    settings = {
        "overlap": "cumulative",
        "sds": SdsPhase(10.0, last=1999),
        "contact": ContactPhase(1.0, start=2000),
        "temporal": TemporalPhase(0.01, start=5000, last=99_999),
    }
    return PhasesConfig(**(settings | changes))


def test_the_classic_windows_need_long_epochs():
    with pytest.raises(ConfigError) as refused:
        check_phases(classic(), BalanceConfig(), EPOCHS * 55)
    assert str(refused.value) == (
        "config.phases does not fit a stage of 1,650 updates: sds [0, 2000) has 1,650 of them, "
        "contact [2000, end) has 0 of them, temporal [5000, end) has 0 of them; each needs 1,000 "
        "(the larger of phases.least_updates = 200 and twice balance.ramp = 500); set "
        "config.total.updates to 6,000 or more, or move or widen the windows"
    )
    check_phases(classic(), BalanceConfig(), EPOCHS * 278)
    table = phase_table(classic(), EPOCHS * 278)
    assert table.rows == [
        ("0-1999", "sds", 2000),
        ("2000-4999", "contact", 3000),
        ("5000-8339", "contact, temporal", 3340),
    ]


def test_windows_are_half_open_and_the_last_update_is_counted_in():
    found = windows(classic(), 8340)
    assert found == {"sds": (0, 2000), "contact": (2000, 8340), "temporal": (5000, 8340)}
    assert windows(PhasesConfig(sds=SdsPhase(1.0, end=2000)), 8340)["sds"] == (0, 2000)


@pytest.mark.parametrize("last", [99_999, 10**6])
def test_a_very_late_last_update_is_the_end_of_the_stage(last):
    assert ContactPhase(1.0, start=5, last=last).stop is None


def test_a_short_run_says_so():
    few = PhasesConfig(least_updates=40, contact=ContactPhase(1.0, start=10))
    check_phases(few, BalanceConfig(ramp=20), 50)
    with pytest.raises(ConfigError, match="has 39 of them"):
        check_phases(few, BalanceConfig(ramp=20), 49)
    # Half of the window at full strength.
    with pytest.raises(ConfigError, match="needs 42"):
        check_phases(few, BalanceConfig(ramp=21), 50)


def test_phases_that_are_off_need_nothing():
    check_phases(PhasesConfig(contact=ContactPhase(0.0, start=10**6)), BalanceConfig(), 10)


def test_how_phases_overlap_must_be_said():
    with pytest.raises(ConfigError, match="sds and contact and temporal on, but does not say how"):
        check_phases(classic(overlap=None), BalanceConfig(), 8340)


def test_exclusive_windows_neither_meet_nor_leave_gaps():
    with pytest.raises(ConfigError, match=r"exclusive, but contact \[2000, end\) and temporal"):
        check_phases(classic(overlap="exclusive"), BalanceConfig(), 8340)
    parted = classic(overlap="exclusive", contact=ContactPhase(1.0, start=2000, end=4000))
    with pytest.raises(ConfigError, match="are 1000 updates without a phase"):
        check_phases(parted, BalanceConfig(), 8340)
    allowed = classic(
        overlap="exclusive", gaps=True, contact=ContactPhase(1.0, start=2000, end=4000)
    )
    check_phases(allowed, BalanceConfig(), 8340)


def test_cumulative_windows_leave_no_gap():
    with pytest.raises(ConfigError, match="there is a gap; let the first end at 2000"):
        check_phases(classic(sds=SdsPhase(10.0, end=1500)), BalanceConfig(), 8340)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ({"coefficient": 1.0, "end": 5, "last": 4}, "set one of them to None"),
        ({"coefficient": 1.0, "start": 5, "end": 5}, "so that it is empty"),
    ],
)
def test_a_window_with_two_ends_or_none_inside_is_refused(phase, message):
    with pytest.raises(ConfigError, match=message):
        ContactPhase(**phase)


def test_a_temporal_phase_that_compares_nothing_is_refused():
    with pytest.raises(ConfigError, match="compares nothing"):
        TemporalPhase(0.01, velocity=0.0, window=2)


def test_shares_leave_something_for_the_pictures_and_stay_below_the_cap():
    with pytest.raises(ConfigError, match="add up to 1, which leaves nothing"):
        PhasesConfig(sds=SdsPhase(1.0, share=0.5), contact=ContactPhase(1.0, share=0.5))
    with pytest.raises(ConfigError, match=r"contact.share = 0.3 must be below balance.most = 0.25"):
        check_phases(PhasesConfig(contact=ContactPhase(1.0, share=0.3)), BalanceConfig(), 8340)


def test_a_recipe_is_refused_where_it_is_read():
    values = {
        "system": "hand_object",
        "total": {"updates": 1650},
        "phases": {"contact": {"coefficient": 1.0, "start": 2000}},
    }
    with pytest.raises(ConfigError, match="has 0 of them"):
        build(Config, values)
    config = build(Config, values, overrides=["phases.contact.start=100"])
    assert config.phases.contact.start == 100 and config.total == Duration(updates=1650)

"""The interval of an update's time, and the verdict on memory."""

from __future__ import annotations

import pytest

from launch.preflight.fit import fits, memory_row, recomputation, traffic_row
from launch.preflight.forecast import forecast, forecast_row
from launch.preflight.prices import price
from launch.preflight.topology import topology
from tests.launch.preflight.examples import answer
from training.registry import load_config

V4_32 = topology("v4-32")


@pytest.fixture(scope="module")
def config():
    return load_config("configs/jepa3d/smoke.py")


def test_the_least_time_is_the_highest_roofline():
    found = forecast(answer(), V4_32)
    wanted = {"memory": 0.05, "links": 0.01, "arithmetic": 0.1, "compiler": 0.07}
    assert found.bounds == pytest.approx(wanted)
    assert (found.least, found.limit, found.mfu) == (pytest.approx(0.1), "arithmetic", 1.0)
    slow = forecast(answer(bytes=1.2e12 * 0.4), V4_32)
    assert (slow.least, slow.limit, slow.mfu) == (pytest.approx(0.4), "memory", pytest.approx(0.25))


def test_the_upper_end_adds_fusions_kernels_and_traffic():
    assert forecast(answer(), V4_32).most == pytest.approx(0.2 + 0.02 + 0.01)
    # Never below the rooflines.
    assert forecast(answer(cycles=0.0), V4_32).most == pytest.approx(0.1)


def test_a_chip_without_a_known_peak_has_no_mfu():
    found = forecast(answer(device_kind="TPU v9"), V4_32)
    assert found.mfu is None and "arithmetic" not in found.bounds


def test_hours_and_cost_follow_from_updates_and_chips():
    row = forecast_row(answer(), V4_32, 36_000, price("v4"))
    assert row.facts["hours"] == pytest.approx([1.0, 2.3])
    assert "1.00 to 2.30 hours: $51.52 to $118.50 on demand" in row.sentence


def test_a_kernel_of_unknown_cost_is_told():
    sentence = forecast_row(answer(unknown_kernels=2), V4_32, 10, None).sentence
    assert "2 kernels of unknown cost are not in it" in sentence


def test_a_program_that_fits_is_told_in_numbers(config):
    row = memory_row(answer(), V4_32, config)
    assert row.state == "pass" and row.sentence.startswith("10.50 of 30.75 GiB a device")
    assert "arguments 4.00 + outputs 3.00 - aliased 3.00 + temporaries 6.00 + code 0.50" in (
        row.sentence
    )
    assert "libtpu's peak 9.00" in row.sentence


@pytest.mark.parametrize(("gib", "state"), [(27.6, "pass"), (27.7, "warn"), (30.76, "FAIL")])
def test_nearly_full_is_a_warning_and_too_full_a_failure(config, gib, state):
    row = memory_row(answer(chip_gib=gib), V4_32, config)
    assert row.state == state and fits(answer(chip_gib=gib), V4_32) == (state != "FAIL")


def test_a_refusal_says_by_how_much_and_what_helps(config):
    refused = {"refused": "Ran out of memory.", "needed_gib": 32.0, "available_gib": 30.75}
    row = memory_row(refused, V4_32, config)
    assert row.state == "FAIL" and not fits(refused, V4_32)
    assert "does not fit a device of v4-32 by 1.25 GiB (32.00 needed, 30.75 there)" in row.sentence
    for idea in ("config.model.remat = none (choices: save_matmuls", "mesh.fsdp", "accumulation"):
        assert idea in row.sentence


def test_choices_of_recomputation_are_found_in_any_config(config):
    assert recomputation(config) == {
        "model.remat": ("none", "save_matmuls", "save_attention", "block")
    }
    backbone = recomputation(load_config("configs/rtdetr/smoke.py"))
    assert backbone == {"model.remat": (False, True)}


def test_traffic_is_told_with_pairs_and_bytes():
    row = traffic_row(answer(), V4_32)
    assert row.sentence.startswith("10 all-gather in pairs an update; a device sends 2,861.0 MiB")
    assert traffic_row(answer(collectives={}), V4_32).sentence.startswith("no collective")

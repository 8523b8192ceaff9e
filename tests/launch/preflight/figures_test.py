"""The compiler's floor, cycles and memory, as they are read."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from launch.preflight.figures import cost_figures, repaired_floor, score_flops
from launch.preflight.hlo import executed, read_module
from launch.preflight.memory import GIB, memory_figures, refusal
from tests.launch.preflight.recorded import SCAN_OPTIMAL_SECONDS, recorded

EMPTY = read_module("ENTRY %main (p: f32[]) -> f32[] {\n  ROOT %p = f32[] parameter(0)\n}\n")


def test_a_second_is_given_back_for_each_call_of_unknown_cost():
    floor = repaired_floor(SCAN_OPTIMAL_SECONDS, recorded("scan_fsdp"))
    assert floor == 2 + SCAN_OPTIMAL_SECONDS and 1e-4 < floor < 2e-4


@pytest.mark.parametrize(
    ("optimal", "floor"),
    [(0.00039, 0.00039), (-0.9993, 0.0007), (-3.9991, 0.0009), (1.25, 1.25), (0.0, 0.0)],
)
def test_what_other_calls_took_is_whole_seconds(optimal, floor):
    assert repaired_floor(optimal, EMPTY) == pytest.approx(floor, abs=1e-9)


def test_a_floor_above_a_second_is_not_cut_to_its_fraction():
    # Two calls took two of 3.3 seconds.
    assert repaired_floor(1.3, recorded("scan_fsdp")) == pytest.approx(3.3)


@pytest.mark.parametrize("optimal", [None, math.nan, math.inf])
def test_no_estimate_is_no_floor(optimal):
    assert repaired_floor(optimal, EMPTY) is None


def test_cycles_of_loops_count_as_often_as_they_run():
    module = recorded("scan_fsdp")
    found = cost_figures({"flops": 1.0, "bytes accessed": 2.0}, module)
    once = {"flops": 1.0, "bytes": 2.0, "kernels": 0}
    assert {key: found[key] for key in once} == once
    lines = {line for _, line in executed(module)}
    assert found["cycles"] > 2 * sum(
        int(line.split('"estimated_cycles":"')[1].split('"')[0])
        for line in lines
        if "estimated_cycles" in line
    )
    assert cost_figures({}, module, updates=4)["cycles"] == found["cycles"] / 4


def test_a_kernel_of_known_and_one_of_unknown_cost():
    call = 'custom-call(%q), custom_call_target="tpu_custom_call"'
    text = (
        "ENTRY %main (q: bf16[2,6,100,64]) -> bf16[2,6,100,64] {\n"
        f"  %splash_mha_fwd.1 = bf16[2,6,100,64]{{3,2,1,0}} {call}\n"
        f"  ROOT %other = bf16[2,6,100,64]{{3,2,1,0}} {call}\n"
        "}\n"
    )
    found = cost_figures({}, read_module(text))
    assert (found["kernels"], found["unknown_kernels"]) == (2, 1)
    # Scores and weighted values: two matmuls over 100 x 100 scores with heads of 128 lanes.
    assert found["kernel_flops"] == 2 * 2 * (2 * 6) * 100**2 * 128


@pytest.mark.parametrize("kind", ["bf16", "f32", "f16"])
def test_the_work_of_attention_is_known_in_every_precision(kind):
    assert score_flops(f"%x = {kind}[1,1,10,64]{{3,2,1,0}} custom-call(%q)") == 2 * 10**2 * 128


def test_attention_in_another_form_is_a_kernel_of_unknown_cost():
    text = (
        "ENTRY %main (q: f32[100,64]) -> f32[100,64] {\n"
        "  ROOT %splash_mha_fwd.1 = f32[100,64]{1,0} custom-call(%q), "
        'custom_call_target="tpu_custom_call"\n}\n'
    )
    found = cost_figures({}, read_module(text))
    assert (found["kernels"], found["unknown_kernels"], found["kernel_flops"]) == (1, 1, 0)


def test_memory_counts_aliased_outputs_once():
    sizes = dict(argument=8, output=6, alias=5, temp=3, generated_code=1)
    named = {f"{name}_size_in_bytes": size * GIB for name, size in sizes.items()}
    stats = SimpleNamespace(**named, peak_memory_in_bytes=2 * GIB)
    found = memory_figures(SimpleNamespace(memory_analysis=lambda: stats))
    assert found["chip_gib"] == 8 + 6 - 5 + 3 + 1 and found["peak_gib"] == 2


@pytest.mark.parametrize(
    ("message", "needed", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (68.62G) exceeds available HBM (30.75G).",
            68.62,
            30.75,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 512.00M of 15.75G "
            "hbm. Exceeded hbm capacity by 1.0G.\n\nTotal hbm usage >= 1G",
            0.5,
            15.75,
        ),
    ],
)
def test_the_compilers_numbers_are_taken_from_its_refusal(message, needed, available):
    found = refusal(message)
    assert found is not None and found["refused"].startswith("Ran out of memory")
    assert (found["needed_gib"], found["available_gib"]) == (needed, available)


def test_another_failure_is_no_refusal():
    assert refusal("INTERNAL: Mosaic failed to compile the kernel") is None

"""Traffic of compiled programs, against counts by hand."""

from __future__ import annotations

import pytest

from launch.preflight.collectives import CALL, group_size, read_traffic, result_bytes, share_sent
from launch.preflight.hlo import read_module
from tests.launch.preflight.recorded import recorded

HALF_MIB = 256 * 512 * 4


def test_a_ring_of_seven_permutations_in_pairs_of_start_and_done():
    permutation = read_traffic(recorded("ring"), 4)["collective-permute"]
    assert (permutation.instructions, permutation.runs, permutation.asynchronous) == (1, 7, 1)
    assert permutation.bytes == 7 * HALF_MIB


def test_gathering_and_scattering_send_three_quarters_of_four_parts():
    traffic = read_traffic(recorded("ring"), 4)
    assert traffic["all-gather"].bytes == traffic["reduce-scatter"].bytes == 3 * HALF_MIB
    # The sum of one float: twice three quarters of it.
    assert traffic["all-reduce"].bytes == 2 * 3 / 4 * 4


def test_weights_are_gathered_in_both_passes_and_gradients_summed_in_one():
    traffic = read_traffic(recorded("scan_fsdp"), 4)
    gathered = 1024 * 1024 * 2  # of bfloat16
    assert traffic["all-gather"].bytes == 3 / 4 * 2 * 5 * gathered
    # The gradient of each layer, and the loss.
    assert traffic["all-reduce"].runs == 5 + 1
    assert traffic["all-reduce"].bytes == 2 * 3 / 4 * (5 * gathered + 4)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1},{2,3}}", 2),
        ("replica_groups={{0,1,2,3}}", 4),
        ("replica_groups=[2,8]<=[16]", 8),
        ("replica_groups=[4,4]<=[2,2,4]T(1,0,2)", 4),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}", 4),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([8]) {'a','b'}", 8),
        ("replica_groups={}", 16),
    ],
)
def test_groups_are_read_in_every_form(groups, size):
    assert group_size(f"  %x = f32[8] all-gather(%y), {groups}, dimensions={{0}}", 16) == size


@pytest.mark.parametrize(
    ("result", "name", "size"),
    [
        ("f32[2,3]{1,0:T(2,128)S(3)}", "all-gather", 24),
        ("(f32[4]{0}, bf16[4]{0}, pred[3]{0})", "all-reduce", 16 + 8 + 3),
        ("(f32[4]{0}, f32[4]{0})", "all-reduce-start", 32),
        ("(f32[4]{0}, f32[16]{0}, u32[], u32[])", "all-gather-start", 64),
        ("((f32[4]{0}, f32[2]{0}), (f32[16]{0}, f32[8]{0}))", "all-gather-start", 96),
        ("s4[16]{0}", "all-to-all", 8),
        ("f8e4m3fn[16]{0}", "all-to-all", 16),
        ("f32[]", "all-reduce", 4),
    ],
)
def test_the_result_of_a_start_is_the_second_part_of_its_tuple(result, name, size):
    line = f"  %x = {result} {name}(%y), channel_id=1"
    call = CALL.search(line)
    assert call is not None and result_bytes(line, call) == size


def test_a_device_alone_sends_nothing():
    kinds = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter")
    assert [share_sent(name, 1) for name in kinds] == [0, 0, 0, 0]


def test_a_done_and_a_name_are_no_collectives():
    text = (
        "ENTRY %main (p: f32[4]) -> f32[4] {\n"
        "  %all-reduce.1 = f32[4]{0} add(%p, %p)\n"
        "  ROOT %done = f32[4]{0} all-reduce-done(%all-reduce.1)\n"
        "}\n"
    )
    assert read_traffic(read_module(text), 4) == {}

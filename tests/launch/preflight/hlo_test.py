"""The text of compiled modules: what runs, and how often."""

from __future__ import annotations

import re

import pytest

from launch.preflight.hlo import executed, read_module, trip_count
from tests.launch.preflight.recorded import recorded


def runs(module, pattern, fusions=True):
    return [times for times, line in executed(module, fusions=fusions) if re.search(pattern, line)]


def test_what_stands_in_a_loop_runs_as_often_as_the_loop():
    assert runs(recorded("ring"), r" collective-permute-start\(") == [7]
    # Forward and backward pass have a loop over the five layers each.
    assert runs(recorded("scan_fsdp"), r" all-gather\(") == [5, 5]


def test_what_stands_outside_of_loops_runs_once():
    assert runs(recorded("ring"), r" (all-gather|reduce-scatter|all-reduce)\(") == [1, 1, 1]


NESTED = """
%wrapped (p: f32[4]) -> f32[4] {
  ROOT %n = f32[4]{0} negate(%p)
}

%inner_body (p: s32[]) -> s32[] {
  ROOT %sum = f32[4]{0} all-reduce(%p), to_apply=%add
}

%inner_condition (p: s32[]) -> pred[] {
  %limit = s32[] constant(3)
  ROOT %less = pred[] compare(%p, %limit), direction=LT
}

%outer_body (p: s32[]) -> s32[] {
  ROOT %while.1 = s32[] while(%p), condition=%inner_condition, body=%inner_body
}

%outer_condition (p: s32[]) -> pred[] {
  ROOT %fused = pred[] fusion(%p), kind=kLoop, calls=%compare_with_limit
}

%compare_with_limit (p: s32[]) -> pred[] {
  %limit.1 = s32[] constant(5)
  ROOT %less.1 = pred[] compare(%p, %limit.1), direction=LT
}

%left (p: f32[4]) -> f32[4] {
  ROOT %a = f32[4]{0} add(%p, %p)
}

%right (p: f32[4]) -> f32[4] {
  ROOT %m = f32[4]{0} multiply(%p, %p)
}

ENTRY %main (p: s32[]) -> s32[] {
  %while.2 = s32[] while(%p), condition=%outer_condition, body=%outer_body
  %choice = f32[4]{0} conditional(%p), branch_computations={%left, %right}
  %start = f32[4]{0} async-start(%p), calls=%wrapped
  ROOT %fusion = f32[4]{0} fusion(%p), kind=kLoop, calls=%wrapped
}
"""


def test_loops_in_loops_multiply_also_where_the_limit_is_in_a_fusion():
    assert runs(read_module(NESTED), " all-reduce") == [15]


def test_every_branch_counts_and_fusions_only_on_request():
    module = read_module(NESTED)
    assert runs(module, " add| multiply") == [1, 1]
    assert runs(module, " negate") == [1, 1] and runs(module, " negate", fusions=False) == []


@pytest.mark.parametrize(
    ("annotation", "count"), [(', backend_config={"known_trip_count":{"n":"9"}}', 9), ("", 3)]
)
def test_an_annotation_counts_before_the_condition(annotation, count):
    module = read_module(NESTED)
    line = f"%w = s32[] while(%p), condition=%inner_condition, body=%b{annotation}"
    assert trip_count(module.computations, line, "inner_condition") == count

"""The search, with a compiler whose memory is a known function of the setting."""

from __future__ import annotations

import pytest

from launch.preflight.search import search_row
from launch.preflight.topology import topology
from tests.launch.preflight.examples import answer
from training.registry import load_config

V4_32 = topology("v4-32")
KEEPS = {"none": 2.0, "save_matmuls": 1.0, "save_attention": 0.5, "block": 0.25}  # GiB an example


@pytest.fixture(scope="module")
def config():
    return load_config("configs/jepa3d/smoke.py", ["batch_size=32"])


def compiler(gib_an_example=KEEPS, fixed=2.75, asked=None):
    """28 GiB are left for examples."""

    def compile_(overrides):
        values = dict(text.split("=") for text in overrides)
        batch, parts = int(values["batch_size"]), int(values["accumulation"])
        assert batch % (16 * parts) == 0, "the batch must divide over the devices"
        if asked is not None:
            asked.append(values)
        temporary = batch / 16 / parts * gib_an_example[values["model.remat"]]
        if temporary + fixed > 30.75:
            return {"refused": "Ran out of memory."}
        flops = 1e12 * batch
        return answer(
            temp_gib=temporary, chip_gib=temporary + fixed, flops_per_update=flops, cycles=1.0
        )

    return compile_


def sizes(row):
    return {
        (fact["remat"]["model.remat"], fact["accumulation"]): fact.get("batch_size")
        for fact in row.facts["tried"]
    }


def test_the_largest_batch_of_every_setting_is_found(config):
    row = search_row(config, V4_32, compiler())
    assert sizes(row) == {
        (name, parts): 16 * parts * int(28 / gib) for name, gib in KEEPS.items() for parts in (1, 2)
    }
    assert row.state == "pass" and "--config.batch_size=" in row.sentence


def test_few_programs_are_compiled(config):
    asked = []
    search_row(config, V4_32, compiler(asked=asked))
    assert len(asked) <= 3 * len(KEEPS) * 2


def test_a_batch_that_is_too_large_is_made_smaller(config):
    row = search_row(config, V4_32, compiler(dict.fromkeys(KEEPS, 20.0)))
    assert set(sizes(row).values()) == {16, 32}


def test_nothing_that_fits_is_a_failure(config):
    row = search_row(config, V4_32, compiler(fixed=40.0))
    assert row.state == "FAIL" and set(sizes(row).values()) == {None}
    assert "mesh.fsdp" in row.sentence

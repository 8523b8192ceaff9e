"""Slices by name, and what they cost."""

from __future__ import annotations

import pytest

from launch.preflight import prices
from launch.preflight.topology import names, topology
from training.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "described", "devices", "hosts", "usable"),
    [
        ("v4-8", "v4:2x2x1", 4, 1, 30.75),
        ("v4-32", "v4:2x2x4", 16, 4, 30.75),
        ("v4-512", "v4:4x8x8", 256, 64, 30.75),
        ("v5e-16", "v5e:4x4", 16, 4, 15.75),
        ("v5litepod-16", "v5e:4x4", 16, 4, 15.75),
        ("v5p-32", "v5:2x2x4", 16, 4, 95.74),
        ("v6e-16", "v6e:4x4", 16, 4, 31.25),
        ("tpu7x-32", "tpu7x:2x2x4", 32, 4, 94.75),
    ],
)
def test_names_count_cores_or_chips(name, described, devices, hosts, usable):
    found = topology(name)
    assert found.description()["topology_name"] == described
    assert (found.devices, found.hosts) == (devices, hosts)
    assert found.generation.usable_gib == usable


def test_every_name_is_its_own_number_of_cores_or_chips():
    for name in names():
        found = topology(name)
        cores = 1 if found.family in ("v5e", "v6e") else 2
        assert found.chips * cores == int(name.partition("-")[2]), name


@pytest.mark.parametrize(
    ("name", "rings"),
    [
        ("v4-64", (False, False, False)),
        ("v4-128", (True, True, True)),
        ("v4-512", (True, True, True)),
        ("v5e-16", (False, False, False)),
        ("v5e-128", (False, True, False)),
        ("v6e-256", (True, True, False)),
    ],
)
def test_axes_are_rings_from_whole_cubes_on(name, rings):
    assert topology(name).wrap == rings


@pytest.mark.parametrize("name", ["v4-33", "v4", "h100-8", "v4-3²"])
def test_an_unknown_slice_names_what_there_is(name):
    with pytest.raises(ConfigError, match=f"--topology {name} is not known; "):
        topology(name)


def test_cost_is_hours_times_chips_times_price():
    sentence = prices.cost_sentence((1.0, 2.0), 16, prices.price("v4"))
    # 16 chips at 3.22 are the 51.52 of a v4-32.
    assert "$51.52 to $103.04 on demand" in sentence and "$15.52 to $31.04 spot" in sentence
    assert prices.DATE in sentence


def test_a_given_price_replaces_the_list():
    assert "$2.00 at $0.50 a chip-hour" in prices.cost_sentence((1, 1), 4, prices.price("v5e", 0.5))


def test_no_price_is_invented():
    assert prices.price("tpu7x") is None
    assert "--price" in prices.cost_sentence((1, 2), 4, None)

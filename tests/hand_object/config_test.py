"""Settings of the model: what cannot work is refused with the key and a way out."""

from __future__ import annotations

import dataclasses

import pytest

from hand_object.config import (
    PRESETS,
    BackgroundConfig,
    ColorConfig,
    EncodingConfig,
    FieldConfig,
    SdfConfig,
    preset,
)
from hand_object.fields.color_network import color_inputs
from training.errors import ConfigError
from training.typed import build


@pytest.mark.parametrize("skip", [0, 4, 5])
def test_a_skip_outside_of_the_hidden_layers_is_refused(skip):
    with pytest.raises(ConfigError, match=f"skip = {skip} must lie strictly between 0 and"):
        SdfConfig(layers=4, skip=skip)


def test_a_skip_needs_room_for_the_encoded_point():
    with pytest.raises(ConfigError, match=r"39 numbers.*sdf.skip = None"):
        FieldConfig(sdf=SdfConfig(width=32))


def test_a_skip_of_the_background_needs_room_too():
    with pytest.raises(ConfigError, match=r"116 numbers.*background.skip = None"):
        BackgroundConfig(width=64)


def test_octaves_need_a_span_to_open_in():
    with pytest.raises(ConfigError, match="coarse_until"):
        EncodingConfig(coarse_until=10, fine_from=10)


def test_input_widths_follow_from_the_rest():
    assert color_inputs(preset("seed"), frame_code=False) == 270
    assert color_inputs(preset("seed"), frame_code=True) == 302
    narrow = dataclasses.replace(preset("seed"), color=ColorConfig(pose_code=0, frame_code=0))
    assert color_inputs(narrow, frame_code=True) == 262
    assert "inputs" not in {field.name for field in dataclasses.fields(ColorConfig)}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_can_be_written_down_and_built_again(name):
    config = preset(name)
    assert build(FieldConfig, dataclasses.asdict(config)) == config


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigError, match="fast, hold, seed, smoke"):
        preset("fats")


def test_limits_stand_at_the_fields():
    with pytest.raises(ConfigError, match="beta_least"):
        build(FieldConfig, {}, overrides=["density.beta_least=1e-6"])

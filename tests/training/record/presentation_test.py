"""Names of metrics: what is common, what a system adds, and a system that is not known."""

from __future__ import annotations

import pytest

from training.record.presentation import COMMON_TITLES, presentation_of
from training.registry import systems_with


def test_a_title_is_the_common_one_or_that_of_the_system_or_made_of_the_words():
    splats = presentation_of("splats")
    assert splats.title("train/grad_norm") == COMMON_TITLES["grad_norm"]
    assert splats.title("eval/test/psnr") == ("PSNR", "dB")
    assert splats.title("train/loss/dssim") == ("D-SSIM", "")
    assert splats.title("eval/large_splats") == ("Large splats", "")


@pytest.mark.parametrize("system", ["no_such_system", None, 7])
def test_a_report_of_an_unknown_system_has_the_common_titles_only(system):
    names = presentation_of(system)
    assert names.titles == COMMON_TITLES
    assert names.title("eval/psnr") == ("Psnr", "")
    assert names.title("eval/AP50_raw") == ("AP50 raw", "")
    assert names.progress_lines({"train/grad_norm_data/means": 1.0}) == []


def test_what_a_system_adds_has_titles_of_its_own():
    for system in systems_with("presentation"):
        names = presentation_of(system)
        assert set(names.optimization) <= set(names.titles)
        assert all(len(title) == 2 for title in names.titles.values())
        assert names.progress_lines({}) == []

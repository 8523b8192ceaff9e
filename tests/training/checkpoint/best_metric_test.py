"""The metric that decides which checkpoint is best must be one that the evaluation gives."""

from __future__ import annotations

import pytest

from training.checkpoint.best_metric import check_best_metric
from training.config import CheckpointConfig
from training.errors import ConfigError

METRICS = {"psnr": 20.0, "ssim": 0.8}


@pytest.mark.parametrize("name", [None, "psnr", "ssim"])
def test_a_metric_that_exists_is_taken(name):
    check_best_metric(CheckpointConfig(best_metric=name), METRICS)


@pytest.mark.parametrize(
    ("name", "hint"), [("pnsr", "did you mean psnr"), ("error", "known are psnr, ssim")]
)
def test_a_metric_that_does_not_exist_is_refused_with_those_that_do(name, hint):
    with pytest.raises(ConfigError, match=rf"best_metric = '{name}' is no metric.*{hint}"):
        check_best_metric(CheckpointConfig(best_metric=name), METRICS)


def test_an_empty_name_is_no_metric():
    with pytest.raises(ConfigError, match="best_metric = '' is no metric"):
        check_best_metric(CheckpointConfig(best_metric=""), METRICS)

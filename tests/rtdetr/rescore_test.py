"""A written graph is scored on the evaluation split; one that lost accuracy is refused."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

from rtdetr.config import Config
from rtdetr.graphs import check, rescore
from tests.rtdetr.data.memory_dataset import blocks
from tests.rtdetr.exported import config_of, run_export, weights_of
from training.errors import ConfigError, InputError

MOST = 3  # objects of an image
DATASET = blocks(7, MOST)


class Oracle:
    """Answers with the objects of the images, in their order; boxes `moved` to the right, in px."""

    def __init__(self, moved=0.0):
        self.moved, self.asked = moved, 0

    def __call__(self, images, sizes):
        assert images.shape == (2, 64, 96, 3) and images.dtype == np.uint8
        assert sizes.shape == (2, 2) and sizes.dtype == np.int32
        parts = [self._one(min(self.asked + place, len(DATASET) - 1)) for place in range(2)]
        self.asked += 2
        return [np.stack(part) for part in zip(*parts)]

    def _one(self, index):
        objects = DATASET.objects(index)
        scores, labels = np.full(MOST, 0.1, np.float32), np.zeros(MOST, np.int32)
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (MOST, 1))
        scores[: len(objects.labels)] = 0.9
        labels[: len(objects.labels)] = objects.labels
        boxes[: len(objects.labels)] = objects.boxes.corners().values + [self.moved, 0] * 2
        return scores, labels, boxes


@pytest.fixture
def config(monkeypatch) -> Config:
    monkeypatch.setattr(rescore, "open_split", lambda *_: DATASET)
    # The function of the network, which is compiled elsewhere.
    monkeypatch.setattr(rescore, "jax", SimpleNamespace(jit=lambda graph: graph))
    return config_of("squash")


def test_every_image_is_scored_once_though_the_last_batch_is_filled(config):
    oracle = Oracle()
    scores = rescore.average_precision(oracle, DATASET, config, 2)
    assert oracle.asked == 8 and scores.metrics["AP"] == pytest.approx(1.0)


def test_equal_answers_pass_and_the_sentence_has_both(config):
    line = rescore.rescored(Oracle(), Oracle(), config, 2, "model.onnx")
    assert line == f"AP 1.0000 on 7 images of {config.data.eval_split}, the network's 1.0000"


@pytest.mark.parametrize("moved", [2.0, float("nan")])
def test_a_graph_that_lost_accuracy_is_refused(config, moved):
    with pytest.raises(InputError, match=r"model\.onnx has AP 0\.\d+ on 7 images.*network 1\.0000"):
        rescore.rescored(Oracle(moved), Oracle(), config, 2, "model.onnx")


@pytest.mark.slow
def test_the_command_scores_what_it_wrote(monkeypatch, tmp_path):
    for module in (rescore, check):
        monkeypatch.setattr(module, "open_split", lambda *_: DATASET)
    lines = run_export(weights_of(), config_of(), tmp_path, "--format", "stablehlo", "--verify")
    assert re.search(r"AP (0\.\d{4}) on 7 images of \w+, the network's \1$", lines[0])


def test_weights_alone_cannot_be_scored(tmp_path):
    with pytest.raises(ConfigError, match="--verify does not go with --format safetensors"):
        run_export(weights_of(), config_of(), tmp_path, "--verify")

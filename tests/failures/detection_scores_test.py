"""What users of detectors meet when they measure: AP that nobody finds again, limits, no report."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr import inference
from rtdetr.config import DecoderConfig, ModelConfig
from rtdetr.evaluation import evaluate
from rtdetr.model.detector import detect, init
from rtdetr.scoring.coco_ap import score
from tests.rtdetr import color_detector
from tests.rtdetr.color_detector import config_of, layout_of, source_of, state_of, with_scoring
from tests.rtdetr.data.memory_dataset import blocks
from tests.rtdetr.scoring.sample import found_of, objects_of


@pytest.fixture
def evaluated(monkeypatch):
    """Evaluates the stand-in on drawn shapes, with changes of `config.scoring`."""
    monkeypatch.setattr(inference, "detect", color_detector.detect)

    def run(**scoring):
        dataset, config = blocks(9), with_scoring(config_of(), **scoring)
        layout = layout_of()
        with jax.set_mesh(layout.mesh):
            source = source_of(dataset, config)
            return evaluate(config, dataset.classes, state_of(), source, layout)

    return run


def test_a_reported_average_precision_uses_every_detection(monkeypatch, evaluated):
    """Field failure 8: a score threshold before scoring, and another one in the user's script."""
    seen = []

    def watched(found, objects, classes, max_detections=100):
        seen.extend(found)
        return score(found, objects, classes, max_detections)

    monkeypatch.setattr("rtdetr.evaluation.score", watched)
    evaluated(raw=False)
    scores = np.concatenate([one.scores for one in seen])
    assert len(scores) == 9 * 9 and scores.min() < 0.01  # all pairs of query and class


def test_more_than_a_hundred_objects_can_be_scored_and_the_metric_says_how_many(evaluated):
    """Field failure 10: the hundredth detection is the last one that COCO's defaults look at."""
    boxes = [[x, y, 3, 3] for x in range(0, 80, 4) for y in range(0, 40, 4)]  # 200
    everything = found_of(boxes, [0] * 200, np.linspace(0.9, 0.1, 200))
    truth = [objects_of(boxes, [0] * 200)]
    assert score([everything], truth, 1).metrics["AR100"] == pytest.approx(0.5)
    assert score([everything], truth, 1, 300).metrics["AR300"] == pytest.approx(1.0)
    assert "AR300" in evaluated(max_detections=300, raw=False).metrics


@pytest.mark.parametrize("queries", [5, 60])
def test_the_number_of_queries_is_a_choice_of_the_one_who_runs(queries):
    """Field failure 10: weights for 300 queries that cannot find the 301st object."""
    config = ModelConfig(decoder=DecoderConfig(layers=1, queries=20))

    def logits():
        params, statistics = init(jax.random.key(0), config, 3)
        images = jnp.zeros((1, 64, 64, 3), jnp.uint8)
        output, _ = detect(config, params, statistics, images, train=False, queries=queries)
        return output.decoder.logits

    assert jax.eval_shape(logits).shape[2] == queries  # traced: no weight has that axis


def test_an_evaluation_says_where_it_goes_wrong(evaluated):
    """Field failure 14: one number, and no class, confusion or threshold."""
    result = evaluated(raw=False)
    classes = result.tables["classes"]
    assert [row[0] for row in classes.rows] == list(blocks(1).classes.names)
    assert {"AP", "AP50", "threshold"} <= set(classes.columns)
    assert {"F1", "threshold", "AP_low", "AP_high"} <= result.metrics.keys()
    assert {"confusion", "confidence", "worst_images"} <= result.tables.keys()
    assert {"confusion", "confidence", "worst_0"} <= result.images.keys()

"""`podvision export` of a detector: one graph from pixels to boxes, and what it says of itself."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.data.geometry import content_size
from rtdetr.graphs import check
from rtdetr.graphs.detection import content_of, graph_of
from rtdetr.inference import detect_batch, in_image_pixels
from tests.rtdetr.exported import NAMES, canvases, config_of, run_export, weights_of
from training.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def weights():
    return weights_of()


@pytest.fixture(scope="module", params=["letterbox", "squash"])
def config(request):
    return config_of(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weights):
    """The exported network of a letterbox."""
    output = tmp_path_factory.mktemp("export") / "stablehlo"
    lines = run_export(weights, config_of(), output, "--format", "stablehlo")
    return output, lines


def test_the_graph_is_the_way_of_evaluation(weights, config):
    images, sizes = canvases(config)
    data = config.data
    places = [tuple(size) for size in sizes.tolist()]
    content = np.array([content_size(size, data.size, data.resize) for size in places])
    batch = {"image": images, "content": content}
    rows = jax.jit(detect_batch(config))(weights.params, weights.statistics, batch).rows
    rows = {name: np.asarray(value) for name, value in rows.items()}
    wanted, _ = in_image_pixels(rows, places, data.size, data.resize)
    found = [np.asarray(x) for x in jax.jit(graph_of(config, weights))(images, sizes)]
    for scores, labels, boxes, right in zip(*found, wanted):
        np.testing.assert_allclose(scores, right.scores, rtol=1e-5)
        np.testing.assert_array_equal(labels, right.labels)
        np.testing.assert_allclose(boxes, right.boxes.values, atol=1e-2)  # px


def test_a_letterbox_is_as_large_as_the_resizing_makes_it():
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 3000, (2000, 2)).astype(np.int32)
    for canvas in ((640, 640), (64, 96), (1088, 1920)):
        wanted = [content_size(tuple(size), canvas, "letterbox") for size in sizes.tolist()]
        np.testing.assert_array_equal(content_of(jnp.asarray(sizes), canvas), wanted)


def test_stablehlo_answers_for_any_number_of_images(folder, weights):
    output, lines = folder
    exported = jax.export.deserialize(bytearray((output / "model.stablehlo").read_bytes()))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    config = config_of()
    images, sizes = canvases(config)
    wanted = jax.jit(graph_of(config, weights))(images, sizes)
    for count in (1, 2):
        answers = exported.call(images[:count], sizes[:count])
        for found, right in zip(answers, wanted):
            np.testing.assert_allclose(found, right[:count], rtol=1e-4, atol=1e-4)
    assert "the detections the same" in lines[0]


def test_the_folder_says_how_to_use_it(folder):
    facts = json.loads((folder[0] / "model.json").read_text())
    assert facts["classes"] == list(NAMES) and facts["canvas"] == [64, 96]
    assert facts["outputs"]["boxes"].startswith("float32 [any, 12, 4]")
    assert "podvision export --workdir run --step 7 --format stablehlo" in facts["command"]


@pytest.mark.slow
def test_layers_queries_and_detections_are_choices(tmp_path, weights):
    dials = ("--layers", 1, "--queries", 9, "--top", 5)
    run_export(weights, config_of("squash"), tmp_path, "--format", "stablehlo", *dials)
    exported = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    assert [shape.shape[1:] for shape in exported.out_avals] == [(5,), (5,), (5, 4)]
    config = config_of("squash", layers=1, queries=9, detections=5)
    images, sizes = canvases(config)
    wanted = jax.jit(graph_of(config, weights))(images, sizes)
    np.testing.assert_allclose(exported.call(images, sizes)[0], wanted[0], rtol=1e-4)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("--format", "stablehlo", "--batch", 2), "--batch does not go with --format stablehlo"),
        (("--top", 5), "--top does not go with --format safetensors"),
        (("--format", "onnx", "--batch", 0), "--batch 0"),
        (("--format", "stablehlo", "--layers", 3), "2 decoder layers"),
    ],
)
def test_arguments_that_cannot_be_are_refused(tmp_path, weights, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run_export(weights, config_of(), tmp_path, *arguments)


def answers_of(scores, labels, boxes):
    return [np.asarray(x)[None] for x in (scores, labels, boxes)]


@pytest.mark.parametrize("changed", ["nothing", "order", "score", "label", "box", "nan"])
def test_an_answer_is_verified_but_the_order_of_equal_scores_is_free(changed):
    # So many that a single other one is allowed, but not four, and no score that is no number.
    scores, labels = np.full(200, 0.5, np.float32), np.arange(200)
    boxes = np.arange(800, dtype=np.float32).reshape(200, 4)
    found = [scores.copy(), labels.copy(), boxes.copy()]
    if changed == "order":
        found = [part[::-1] for part in found]
    elif changed == "score":
        found[0][:4] += 2e-4
    elif changed == "label":
        found[1][:4] = 300
    elif changed == "box":
        found[2][:4, 2] += 0.02
    elif changed == "nan":
        found[0][0] = np.nan
    size = np.array([[100, 50]])
    example = check.Example(np.zeros((1, 1, 1, 3), np.uint8), size, "a test")

    def verify():
        graph: Any = lambda *_: tuple(answers_of(scores, labels, boxes))  # noqa: E731
        return check.verified(answers_of(*found), graph, example, "model")

    if changed in ("nothing", "order"):
        verify()
    else:
        with pytest.raises(InputError, match="does not answer as the network does"):
            verify()


def test_without_its_data_a_network_is_verified_on_a_drawing():
    example = check.example_of(config_of(), 2)
    assert example.images.shape == (2, 64, 96, 3) and "drawing" in example.origin

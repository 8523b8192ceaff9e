"""A detector in ONNX, run by onnxruntime: every primitive, the whole network, and its AP."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from rtdetr.boxes import xyxy_px
from rtdetr.data.preparation import PrepareSettings, prepare, read_source
from rtdetr.data.prepared import open_split
from rtdetr.data.source import DetectionSource
from rtdetr.evaluation import evaluate
from rtdetr.graphs.detection import graph_of
from rtdetr.graphs.to_onnx.convert import convert
from rtdetr.scoring.coco_ap import score
from rtdetr.scoring.found import Found
from rtdetr.synthetic import write_dataset
from tests.rtdetr.color_detector import layout_of
from tests.rtdetr.exported import (
    NAMES,
    canvases,
    config_of,
    run_export,
    state_of,
    weights_of,
)
from training.errors import ConfigError

onnx = pytest.importorskip("onnx", reason="pip install 'podvision[parity]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'podvision[parity]'")

pytestmark = pytest.mark.parity


def session_of(model):
    """Of a file, or of its bytes."""
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def arrays(*shapes):
    generator = np.random.default_rng(len(shapes))
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


WHERE = np.array([[2, 0, 1], [1, 1, 3]], np.int32)
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
FUNCTIONS = {
    "numbers": (lambda x: jnp.exp(-x) * jnp.sqrt(jnp.abs(x)) - jnp.floor(x) ** 3, (3, 4)),
    "erf": (lambda x: jax.nn.gelu(x, approximate=False) + jax.lax.erf(x), (3, 4)),
    "sigmoid": (lambda x: jax.nn.silu(x) + jax.lax.rsqrt(jnp.square(x) + 1), (3, 4)),
    "softmax": (lambda x: jax.nn.softmax(x, axis=1) + x.min(axis=1, keepdims=True), (3, 4)),
    "clip": (lambda x: jax.lax.clamp(-0.5, x, 0.7), (3, 4)),
    "whole numbers": (lambda x: jnp.int32(x * 9) // 4 + jnp.int32(x * 9) % 4, (30,)),
    "choice": (lambda x: jnp.where((x > 0) & ~(x > 1) | (x != x), x, 2 * x), (3, 4)),
    "parts": (lambda x: jnp.stack([p.sum() for p in jnp.split(x, [1, 3], axis=1)]), (3, 4)),
    "reversed": (lambda x: jnp.concatenate([x[::-1, 1:], x[:, 3:0:-1]], axis=1), (3, 4)),
    "every other": (lambda x: x[:, 1::2].T.reshape(2, 3, 1)[..., 0], (3, 4)),
    "repeated": (lambda x: jnp.broadcast_to(x[:, None], (3, 2, 4)), (3, 4)),
    "rows": (lambda x: jnp.take_along_axis(x, WHERE[:, :, None], axis=1), (2, 4, 5)),
    "rows of heads": (
        lambda x: jnp.take_along_axis(x, jnp.stack([WHERE, WHERE], 1)[..., None], axis=2),
        (2, 2, 4, 5),
    ),
    "one image": (lambda x: jnp.take_along_axis(x, WHERE[:1, :, None], axis=1), (1, 4, 5)),
    "column": (lambda x: x[:, jnp.array([2, 0])], (3, 4)),
    "points": (lambda x: x[jnp.array([2, 0, 0]), jnp.array([3, 1, 1])], (3, 4)),
    "held inside": (lambda x: jnp.take(x, jnp.array([7, 1]), axis=0, mode="clip"), (3, 4)),
    "largest": (lambda x: sum(jax.lax.top_k(x, 3)), (4, 9)),
    "equal ones": (lambda x: jax.lax.top_k(jnp.floor(x), 9)[1].astype(jnp.float32), (4, 9)),
    "sorted": (lambda x: jnp.sort(x, axis=0), (4, 9)),
    "pooled": (
        lambda x: jax.lax.reduce_window(
            x,
            -jnp.inf,
            jax.lax.max,
            (1, 3, 3, 1),
            (1, 2, 2, 1),
            ((0, 0), (1, 1), (1, 0), (0, 0)),
        ),
        (2, 8, 7, 3),
    ),
}


def assert_same(function, *inputs):
    names = [f"input_{i}" for i in range(len(inputs))]
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    model = convert(lambda *a: (function(*a),), shapes, names, ["output"])
    (found,) = session_of(model.SerializeToString()).run(None, dict(zip(names, inputs)))
    wanted = np.asarray(function(*(jnp.asarray(x) for x in inputs)))
    assert found.dtype == wanted.dtype
    # Sums of tens of products, in another order.
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_primitive(name):
    function, shape = FUNCTIONS[name]
    assert_same(function, *arrays(shape))


@pytest.mark.parametrize(
    "subscripts, shapes",
    [
        ("bqhd,bkhd->bhqk", [(2, 3, 4, 5), (2, 6, 4, 5)]),
        ("bhqpd,bqhp->bqhd", [(2, 4, 3, 6, 5), (2, 3, 4, 6)]),
        ("bnd,de->bne", [(2, 3, 4), (4, 5)]),
        ("bnd,ed->bne", [(2, 3, 4), (5, 4)]),
        ("ab,cd->dabc", [(2, 3), (4, 5)]),
        ("abc,bca->", [(2, 3, 4), (3, 4, 2)]),
    ],
)
def test_a_product(subscripts, shapes):
    assert_same(lambda x, y: jnp.einsum(subscripts, x, y), *arrays(*shapes))


@pytest.mark.parametrize("stride, pads", [((1, 1), "SAME"), ((2, 1), ((1, 0), (0, 2)))])
def test_a_convolution(stride, pads):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, stride, pads, dimension_numbers=DIMENSIONS, feature_group_count=2
        )

    assert_same(convolve, *arrays((2, 8, 9, 4), (3, 3, 2, 6)))


def test_a_primitive_that_is_not_known_is_named():
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    with pytest.raises(ConfigError, match="primitive cumsum has no ONNX form"):
        convert(lambda x: (jnp.cumsum(x),), [shape], ["x"], ["y"])


@pytest.fixture(scope="module")
def weights():
    return weights_of()


@pytest.mark.parametrize("resize, batch", [("squash", 1), ("letterbox", 2)])
def test_the_network(tmp_path, weights, resize, batch):
    config = config_of(resize)
    lines = run_export(weights, config, tmp_path, "--format", "onnx", "--batch", batch)
    assert "the detections the same" in lines[0]
    graph, session = (
        jax.jit(graph_of(config, weights)),
        session_of(epath.Path(tmp_path / "model.onnx")),
    )
    for seed in range(3):
        images, sizes = (part[:batch] for part in canvases(config, seed))
        found = session.run(None, {"images": images, "sizes": sizes})
        wanted = [np.asarray(x) for x in graph(images, sizes)]
        np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
        np.testing.assert_array_equal(found[1], wanted[1])
        np.testing.assert_allclose(found[2], wanted[2], atol=1e-4 * sizes.max())
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(NAMES)
    assert f"--format onnx --output {tmp_path} --batch {batch}" in metadata["command"]


def prepared(coco, folder):
    """The validation split of a prepared copy of a folder in COCO's form."""
    source, splits = read_source(coco, "auto")
    prepare(splits, source, epath.Path(folder), PrepareSettings(), lambda _: None)
    return open_split(str(folder), "val")


def own_objects(answers, dataset):
    """Every third detection, moved a little, as an annotated object: the network is right."""
    rows = []
    for index, (_, labels, boxes) in enumerate(answers):
        # An IoU of 0.87, between two of COCO's thresholds: none is decided by rounding.
        for label, (left, top, right, bottom) in list(zip(labels, boxes))[1::3]:
            wide, high = float(right - left), float(bottom - top)
            if min(wide, high) > 2:
                row = {"id": len(rows) + 1, "iscrowd": 0, "area": 0.87 * wide * high}
                row |= {"image_id": dataset.image_id(index)}
                row |= {"category_id": dataset.classes.source_ids[label]}
                rows.append(row | {"bbox": [float(left), float(top), 0.87 * wide, high]})
    return rows


def test_average_precision_from_onnx_is_that_of_evaluation(tmp_path, weights):
    """Field failure 6: exported detectors that lose AP, by a fused GridSample or by half floats."""
    config = config_of("letterbox", tmp_path / "data", detections=60)
    coco = write_dataset(tmp_path / "coco", 2, 8, (64, 80))
    dataset = prepared(coco, tmp_path / "shapes")
    examples = DetectionSource(dataset, config.data, 0, 4, 10, False)
    sizes = np.array([dataset.size(index) for index in range(len(dataset))], np.int32)
    images = np.stack([examples[index]["image"] for index in range(len(dataset))])
    answers = [np.asarray(x) for x in jax.jit(graph_of(config, weights))(images, sizes)]
    annotations = coco / "annotations" / "instances_val.json"
    table = json.loads(annotations.read_text())
    table["annotations"] = own_objects(list(zip(*answers)), dataset)
    annotations.write_text(json.dumps(table))
    dataset = prepared(coco, tmp_path / "data")
    examples = DetectionSource(dataset, config.data, 0, 4, 10, False)
    run_export(weights, config, tmp_path / "out", "--format", "onnx")
    path = tmp_path / "out" / "model.onnx"
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert "GridSample" not in operators and "GatherND" in operators
    layout = layout_of()
    with jax.set_mesh(layout.mesh):
        wanted = evaluate(config, dataset.classes, state_of(weights), examples, layout).metrics
    metrics = scored(session_of(path), dataset, examples)
    assert wanted["AP"] > 0.05  # an AP of nothing would agree with anything
    for name in ("AP", "AP50", "AR100"):
        assert metrics[name] == pytest.approx(wanted[name], abs=1e-4)


def scored(session, dataset, examples):
    """The metrics of what a session answers for every image."""
    found = []
    for index in range(len(dataset)):
        size = np.array([dataset.size(index)], np.int32)
        inputs = {"images": examples[index]["image"][None], "sizes": size}
        scores, labels, boxes = session.run(None, inputs)
        placed = xyxy_px(boxes[0].astype(np.float64), size[0])
        found.append(Found(placed, labels[0], scores[0].astype(np.float64)))
    objects = [dataset.objects(index) for index in range(len(dataset))]
    return score(found, objects, len(NAMES)).metrics

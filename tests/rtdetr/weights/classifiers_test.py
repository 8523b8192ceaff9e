"""The body of a classifier becomes a backbone; one that has another form is refused by name."""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.config import BackboneConfig
from rtdetr.model.backbone import Backbone
from rtdetr.weights import imported
from rtdetr.weights.exchange import to_trees
from rtdetr.weights.foreign import read_foreign
from training.checkpoint.store import CheckpointReader
from training.errors import CheckpointError
from training.paths import named_leaves
from training.weight_files import write_safetensors

BODY = BackboneConfig(depths=(1, 2, 1, 1), stem=(4, 4, 8), widths=(4, 6, 8, 10))
# As timm 1.0 lists them in a network of these depths: (convolution, its norm, path here).
MODULES = [
    ("conv1.0", "conv1.1", "stem/conv_0"),
    ("conv1.3", "conv1.4", "stem/conv_1"),
    ("conv1.6", "bn1", "stem/conv_2"),
    ("layer1.0.downsample.1", "layer1.0.downsample.2", "stage_0/block_0/shortcut/project"),
    ("layer2.0.downsample.1", "layer2.0.downsample.2", "stage_1/block_0/shortcut/project"),
    ("layer3.0.downsample.1", "layer3.0.downsample.2", "stage_2/block_0/shortcut/project"),
    ("layer4.0.downsample.1", "layer4.0.downsample.2", "stage_3/block_0/shortcut/project"),
]
for layer, block in ((1, 0), (2, 0), (2, 1), (3, 0), (4, 0)):
    for part in (1, 2, 3):
        module, path = f"layer{layer}.{block}", f"stage_{layer - 1}/block_{block}"
        MODULES.append((f"{module}.conv{part}", f"{module}.bn{part}", f"{path}/conv_{part - 1}"))
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


@pytest.fixture(scope="module")
def wanted():
    """Arrays of a backbone by path; each has values of its own."""
    image = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: Backbone(BODY).init(jax.random.key(0), image, False))
    draw = np.random.default_rng(0)
    return {
        path: draw.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in named_leaves(shapes).items()
    }


@pytest.fixture
def classifier(wanted):
    """The same under timm's names, with the head of a classifier."""
    arrays = {"fc.weight": np.zeros((10, 40), np.float32), "fc.bias": np.zeros(10, np.float32)}
    for convolution, norm, path in MODULES:
        arrays[f"{convolution}.weight"] = wanted[f"params/{path}/kernel"].transpose(3, 2, 0, 1)
        for theirs, ours in NORM.items():
            arrays[f"{norm}.{theirs}"] = wanted[f"statistics/{path}/norm/{ours}"]
        arrays[f"{norm}.num_batches_tracked"] = np.array(3, np.int64)
    return {name: np.ascontiguousarray(value) for name, value in arrays.items()}


def written(folder, arrays):
    write_safetensors(folder / "classifier.safetensors", arrays)
    return folder / "classifier.safetensors"


def test_every_array_of_the_body_finds_its_place(tmp_path, wanted, classifier):
    found = read_foreign(written(tmp_path, classifier))
    assert found.model.backbone == BODY and found.model.input_norm == "imagenet"
    trees = named_leaves(to_trees(found.tensors, found.model, 1, "file", backbone_only=True))
    assert {path.replace("/backbone", "", 1) for path in trees} == wanted.keys()
    for path, value in trees.items():
        np.testing.assert_array_equal(value, wanted[path.replace("/backbone", "", 1)])


def test_an_array_that_the_backbone_lacks_is_named(tmp_path, classifier):
    classifier["layer1.0.attention.weight"] = np.zeros(3, np.float32)
    found = read_foreign(written(tmp_path, classifier))
    with pytest.raises(CheckpointError, match=r"left over model\.backbone\.layer1\.0\.attention"):
        to_trees(found.tensors, found.model, 1, "file", backbone_only=True)


def test_a_network_with_another_stem_is_refused(tmp_path, classifier):
    plain = {name: value for name, value in classifier.items() if not name.startswith("conv1.")}
    plain["conv1.weight"] = np.zeros((8, 3, 7, 7), np.float32)
    with pytest.raises(CheckpointError, match=r"stem is one convolution.*resnet50d"):
        read_foreign(written(tmp_path, plain))


def test_the_command_says_how_pixels_were_standardized(tmp_path, classifier):
    args = argparse.Namespace(
        source=written(tmp_path, classifier),
        workdir=tmp_path / "run",
        config=None,
        overrides=[],
        classes=None,
        backbone_only=True,
    )
    lines = imported.import_weights(args)
    assert "--config.model.input_norm=imagenet" in lines[-1]
    leaves = CheckpointReader(tmp_path / "run").describe("latest").leaves
    assert "params/backbone/stage_3/block_0/conv_2/kernel" in leaves

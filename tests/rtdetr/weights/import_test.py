"""Weights of transformers and of the authors: every array once, and nothing else."""

from __future__ import annotations

import argparse
import dataclasses
import pickle
import zipfile

import numpy as np
import pytest

from rtdetr.config import ModelConfig
from rtdetr.weights import imported
from rtdetr.weights.exchange import to_tensors, to_trees
from rtdetr.weights.foreign import read_foreign
from rtdetr.weights.names import entries
from rtdetr.weights.transformers_config import from_transformers, to_transformers
from tests.rtdetr.model.golden import golden_weights
from tests.rtdetr.weights.folder import (
    MODEL,
    NAMES,
    as_authors,
    random_weights,
    write_torch,
    write_transformers,
)
from training.checkpoint.store import CheckpointReader
from training.errors import CheckpointError, ConfigError, InputError
from training.paths import named_leaves
from training.torch_file import read_torch_file


@pytest.fixture(scope="module")
def weights():
    return random_weights()


@pytest.fixture(scope="module")
def wanted(weights):
    return {entry.path: entry.to_ours(weights[entry.name]) for entry in entries(MODEL)}


@pytest.fixture(params=["random", "reference"])
def either(request):
    """Weights that need no data, and those of the reference values."""
    if request.param == "random":
        return request.getfixturevalue("weights")
    return golden_weights(request.getfixturevalue("data_root"))


def assert_equal(trees, wanted):
    found = named_leaves(trees)
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def trees_of(path, **settings):
    found = read_foreign(path)
    return to_trees(found.tensors, found.model, 80, str(path), **settings)


@pytest.mark.parametrize("old", [True, False])
def test_a_folder_of_transformers_in_either_spelling(tmp_path, either, old):
    folder = write_transformers(tmp_path / "folder", either, MODEL, old)
    found = read_foreign(folder)
    assert found.model == MODEL and found.classes == NAMES
    expected = {entry.path: entry.to_ours(either[entry.name]) for entry in entries(MODEL)}
    assert_equal(trees_of(folder), expected)


def test_arrays_come_back_to_the_bit(tmp_path, weights):
    folder = write_transformers(tmp_path / "folder", weights, MODEL)
    trees = trees_of(folder)
    tensors = to_tensors(trees, MODEL)
    again = write_transformers(tmp_path / "again", tensors, MODEL)
    assert_equal(trees_of(again), named_leaves(trees))


@pytest.mark.parametrize("place", ["ema", "model", "plain"])
def test_a_file_of_the_authors_and_its_average_first(tmp_path, weights, wanted, place):
    arrays = as_authors(weights)
    other = {
        name: value + 1 if value.dtype == np.float32 else value for name, value in arrays.items()
    }
    held = {
        "ema": {"ema": {"module": arrays, "updates": 7}, "model": other, "last_epoch": 3},
        "model": {"model": arrays, "date": "2024"},
        "plain": arrays,
    }[place]
    path = write_torch(tmp_path / "file.pth", held)
    found = read_foreign(path)
    # No array says how many heads and queries there are: those of every published network.
    published = dataclasses.replace(
        MODEL,
        encoder=dataclasses.replace(MODEL.encoder, heads=8),
        decoder=dataclasses.replace(MODEL.decoder, heads=8, queries=300, points=(2, 2, 2)),
    )
    assert found.model == published and found.classes is None
    assert_equal(to_trees(found.tensors, MODEL, 80, "file"), wanted)


class Malicious:
    def __reduce__(self):
        return print, ("this runs when the file is read",)


def test_a_file_that_would_run_something_is_refused_and_does_not(tmp_path, capsys):
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": Malicious()}))
    with pytest.raises(CheckpointError, match=r"asks for (builtins|__builtin__)\.print"):
        read_torch_file(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02}q\x00."])
def test_damaged_files_are_one_sentence(tmp_path, content):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"no file of torch\.save"):
        read_torch_file(path)


HEAD = "model.enc_score_head.weight"


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda w: w.pop(HEAD), f"missing {HEAD}; left over none"),
        (lambda w: w.update(foreign=w[HEAD]), "missing none; left over foreign"),
        (lambda w: w.update({HEAD: w[HEAD][:7]}), rf"{HEAD} is \(7, 32\), expected \(80, 32\)"),
        (lambda w: w.update({HEAD: w[HEAD] * np.nan}), f"not finite in {HEAD}"),
    ],
)
def test_an_array_that_does_not_fit_is_named(weights, change, sentence):
    changed = {name: v for name, v in weights.items() if "num_batches" not in name}
    change(changed)
    with pytest.raises(CheckpointError, match=sentence):
        to_trees(changed, MODEL, 80, "file")


@pytest.mark.parametrize(
    "key, value",
    [("model_type", "detr"), ("normalize_before", True), ("decoder_method", "discrete")],
)
def test_a_setting_that_there_is_not_here_is_refused(key, value):
    values = to_transformers(MODEL, NAMES) | {key: value}
    with pytest.raises(ConfigError, match=value if key == "model_type" else key):
        from_transformers(values, "config.json")


@pytest.mark.parametrize("labels", [{}, {0: "a", 2: "b"}, {0: "a", 1: "a"}])
def test_classes_without_one_name_each_are_refused(labels):
    values = to_transformers(MODEL, NAMES) | {"id2label": labels}
    with pytest.raises(ConfigError, match="id2label"):
        from_transformers(values, "config.json")


@pytest.mark.parametrize("model", [ModelConfig(), MODEL])
def test_settings_come_back(model):
    model = dataclasses.replace(
        model, decoder=dataclasses.replace(model.decoder, select_invalid=True, offset_scale=0.25)
    )
    assert from_transformers(to_transformers(model, NAMES), "x") == (model, NAMES)


def test_what_transformers_lacks_is_not_exported():
    equal = dataclasses.replace(MODEL.backbone, block="basic", widths=(16, 16, 32, 64))
    with pytest.raises(ConfigError, match=r"backbone\.widths = \(16, 16, 32, 64\)"):
        to_transformers(dataclasses.replace(MODEL, backbone=equal), NAMES)
    model = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, blocks=1))
    with pytest.raises(ConfigError, match=r"encoder\.blocks = 1 \(only 3\)"):
        to_transformers(model, NAMES)


def arguments(source, workdir, **values):
    given = {"config": None, "overrides": [], "classes": None, "backbone_only": False}
    return argparse.Namespace(source=source, workdir=workdir, **{**given, **values})


def test_the_command_writes_a_work_folder_with_the_classes(tmp_path, weights, wanted):
    folder = write_transformers(tmp_path / "folder", weights, MODEL)
    lines = imported.import_weights(arguments(folder, tmp_path / "run"))
    saved = CheckpointReader(tmp_path / "run").describe("latest")
    assert saved.task["classes"] == list(NAMES.names) and saved.step == 0
    assert saved.config["model"]["decoder"]["queries"] == 20
    paths = {path.replace("statistics/", "model_state/", 1) for path in wanted}
    assert paths | {f"ema/{path}" for path in wanted} <= saved.leaves.keys()
    assert f"{len(wanted)} arrays" in lines[0]


def test_a_backbone_alone(tmp_path, weights):
    arrays = {
        name.removeprefix("backbone."): value
        for name, value in as_authors(weights).items()
        if name.startswith("backbone.")
    }
    path = write_torch(tmp_path / "backbone.pth", arrays)
    imported.import_weights(arguments(path, tmp_path / "run", backbone_only=True))
    leaves = CheckpointReader(tmp_path / "run").describe("latest").leaves
    assert {path for path in leaves if path.startswith("params/")} == {
        path for path in leaves if path.startswith("params/backbone/")
    }
    assert "params/backbone/stem/conv_0/kernel" in leaves


@pytest.mark.parametrize(
    "names, error, sentence",
    [(None, ConfigError, "does not name its 80 classes"), ("a\nb", ConfigError, "names 2 classes")],
)
def test_a_file_without_names_wants_them(tmp_path, weights, names, error, sentence):
    path = write_torch(tmp_path / "file.pth", as_authors(weights))
    classes = None
    if names is not None:
        classes = tmp_path / "names.txt"
        classes.write_text(names)
    with pytest.raises(error, match=sentence):
        imported.import_weights(arguments(path, tmp_path / "run", classes=classes))
    assert not (tmp_path / "run").exists()


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_foreign(tmp_path / "nothing")

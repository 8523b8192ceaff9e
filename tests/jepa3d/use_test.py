"""Embeddings and exported weights of a V-JEPA3D run, through the commands, on tiny volumes."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jepa3d.config import ModelConfig, TransformerConfig
from jepa3d.data import VolumeSource
from jepa3d.model.jepa import encode
from jepa3d.transformers_config import to_transformers
from jepa3d.vjepa2_weights import import_weights
from launch.cli import main
from tests.smoke.commands import RECIPE, prepare_synthetic
from training.checkpoint.first import write_first_checkpoint
from training.checkpoint.restore import restored
from training.errors import ConfigError
from training.mesh import Layout, make_mesh
from training.program import Program
from training.registry import load_config, make_task
from training.weight_files import read_safetensors


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with `dicom`, and `records` prepared from it."""
    return prepare_synthetic(tmp_path_factory.mktemp("oct"), participants=4).parent


@pytest.fixture(scope="module")
def workdir(data, tmp_path_factory) -> Path:
    """A checkpoint whose target encoder is not its trained encoder."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.py").write_text(RECIPE)
    config = load_config(f"{folder / 'tiny.py'}:{data / 'records'}")
    task = make_task(config)
    layout = Layout(make_mesh(config.mesh, jax.devices()[:1]))
    program = Program(task, layout)
    with jax.set_mesh(layout.mesh):
        state = program.initial_state()
        moved = jax.tree.map(lambda x: 1.5 * x + 0.01, state.ema)
        state = jax.device_put(replace(state, ema=moved), program.shardings)
        write_first_checkpoint(folder / "run", program, state, config, [])
    return folder / "run"


@functools.cache
def reopened(workdir: Path) -> tuple[Any, Any, int]:
    """Program, state and step of the newest checkpoint."""
    return restored(workdir, "latest")


def embeddings(file: Path) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(file) as found:
        arrays = {name: found[name] for name in found}
    return arrays, json.loads(str(arrays.pop("metadata")))


def expected(workdir: Path, source: VolumeSource, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the target encoder for a prepared record, and its foreground; computed plainly."""
    program, state, _ = reopened(workdir)
    example, floor = source[index], program.config.data.sigma_floor
    volume = example["volume"].astype(np.float32) / 255 - example["mean"]
    volume = volume / max(float(example["std"]), floor)
    ema = jax.device_get(state.ema)
    tokens = encode(program.config.model, ema, jax.numpy.asarray(volume)[None, ..., None])[0]
    return np.asarray(tokens), example["foreground"].reshape(-1)


def used(*words: Any) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def folder(workdir, tmp_path_factory) -> Path:
    """The run as an exported model."""
    target = tmp_path_factory.mktemp("export") / "model"
    assert used("export", "--workdir", workdir, "--output", target) == 0
    return target


@pytest.fixture(scope="module")
def source(data) -> VolumeSource:
    return VolumeSource(data / "records", "train")


@pytest.fixture(scope="module")
def first(data, source) -> Path:
    """The file of the first record."""
    return data / "dicom" / source.rows[0]["path"]


@pytest.fixture(scope="module")
def by_run(workdir, first, tmp_path_factory) -> Path:
    """What the run says of the first file."""
    output = tmp_path_factory.mktemp("by_run")
    words = ("--workdir", workdir, "--input", first, "--output", output, "--tokens")
    assert used("predict", *words) == 0
    return output / f"{first.name}.npz"


def test_a_file_is_embedded_as_its_prepared_record_is(workdir, source, by_run):
    tokens, foreground = expected(workdir, source, 0)
    arrays, metadata = embeddings(by_run)
    assert arrays.keys() == {"tokens", "pooled", "pooled_std", "foreground"}
    np.testing.assert_allclose(arrays["tokens"], tokens, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(arrays["foreground"], foreground)
    assert 0 < foreground.sum() < foreground.size
    inside = tokens[foreground].astype(np.float64)
    np.testing.assert_allclose(arrays["pooled"], inside.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(arrays["pooled_std"], inside.std(axis=0), rtol=1e-4, atol=1e-5)
    assert metadata["sha256"] == source.rows[0]["sha256"] and metadata["encoder"] == "target"
    assert metadata["laterality"] == source.rows[0]["laterality"] in ("R", "L")
    assert np.prod(metadata["token_grid"]) == len(tokens)


def two_volumes(data: Path, folder: Path, source: VolumeSource) -> Path:
    """A folder with the files of the first two records, and one that is no volume."""
    for number in (0, 1):
        path = folder / f"sub{number}" / "scan.dcm"
        path.parent.mkdir(parents=True)
        shutil.copy(data / "dicom" / source.rows[number]["path"], path)
    np.save(folder / "flat.npy", np.zeros((2, 3), np.uint8))
    return folder


def test_a_folder_gives_one_file_a_volume_and_names_what_was_skipped(
    data, workdir, folder, source, tmp_path, capsys
):
    scans, output = two_volumes(data, tmp_path / "in", source), tmp_path / "out"
    assert used("predict", "--model", folder, "--input", scans, "--output", output) == 0
    said = capsys.readouterr().out
    assert "skipped flat.npy: unsupported_pixels" in said and "of 2 volumes" in said
    files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.npz"))
    assert files == ["sub0/scan.dcm.npz", "sub1/scan.dcm.npz"]
    tokens, foreground = expected(workdir, source, 1)
    arrays, metadata = embeddings(output / files[1])
    assert arrays.keys() == {"pooled", "pooled_std"}  # tokens are large, and not asked for
    np.testing.assert_allclose(arrays["pooled"], tokens[foreground].mean(0), rtol=1e-4, atol=1e-5)
    assert metadata["participant"] == source.rows[1]["participant"]


def test_a_table_has_person_and_eye_of_each_volume(data, folder, source, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    scans = two_volumes(data, tmp_path / "in", source)
    for name in ("a.npz", "a.parquet"):
        words = ("--model", folder, "--input", scans, "--output", tmp_path / name)
        assert used("predict", *words) == 0
    with np.load(tmp_path / "a.npz") as arrays:
        table = {name: arrays[name] for name in arrays}
    assert table["path"].tolist() == ["sub0/scan.dcm", "sub1/scan.dcm"]
    for name in ("participant", "laterality", "scanner", "sha256"):
        assert table[name].tolist() == [row[name] for row in source.rows[:2]], name
    assert table["pooled"].shape == table["pooled_std"].shape == (2, 16)
    columns = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    for name, values in columns.items():
        np.testing.assert_array_equal(np.asarray(values, table[name].dtype), table[name], name)
    assert columns.keys() == table.keys() - {"step"}


def test_an_exported_model_says_what_the_run_says(folder, first, by_run, tmp_path):
    """From a copy elsewhere, without the run."""
    alone = shutil.copytree(folder, tmp_path / "model")
    words = ("--model", alone, "--input", first, "--output", tmp_path, "--tokens")
    assert used("predict", *words) == 0
    np.testing.assert_equal(embeddings(tmp_path / by_run.name), embeddings(by_run))


def test_a_run_is_exported_without_its_records(data, workdir, tmp_path):
    """From a copy of the run whose config names a folder of records that does not exist."""
    alone = shutil.copytree(workdir, tmp_path / "run")
    config = (alone / "config.json").read_text()
    (alone / "config.json").write_text(config.replace(str(data / "records"), str(data / "gone")))
    assert used("export", "--workdir", alone, "--output", tmp_path / "model") == 0
    assert "not known here" in (tmp_path / "model" / "README.md").read_text()


def test_an_array_is_embedded_in_the_folder_settings_or_refused(folder, tmp_path, capsys):
    """Plain arrays carry no spacing; the records of this run were prepared without one."""
    np.save(tmp_path / "a.npy", np.zeros((8, 64, 64), np.uint8))
    words = ("--input", tmp_path / "a.npy", "--output", tmp_path / "a.npz")
    assert used("predict", "--model", folder, *words) == 2
    assert "skipped a.npy" in capsys.readouterr().err
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--input", "nowhere.dcm", "--output", "a.npz"), "does not exist"),
        (("--input", ".", "--output", "a.npz", "--tokens"), "give a folder instead"),
        (("--input", ".", "--output", "file.txt"), "is a file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    workdir, tmp_path, words, said, capsys
):
    (tmp_path / "file.txt").touch()
    words = [word if word.startswith("--") else tmp_path / word for word in words]
    assert used("predict", "--workdir", workdir, *words) == 2
    assert said in capsys.readouterr().err


def test_a_model_is_named_once_and_is_one(workdir, folder, tmp_path, capsys):
    words = ("--input", tmp_path, "--output", tmp_path / "out")
    assert used("predict", "--model", folder, "--workdir", workdir, *words) == 2
    assert "--workdir of a run, or --model" in capsys.readouterr().err
    assert used("predict", "--model", workdir, *words) == 2
    assert "is no model of podvision export" in capsys.readouterr().err
    broken = shutil.copytree(folder, tmp_path / "broken")
    text = (broken / "preprocessing.json").read_text()
    (broken / "preprocessing.json").write_text(text.replace('"depth": 2', '"depth": 0'))
    assert used("predict", "--model", broken, *words) == 2
    said = capsys.readouterr().err
    assert "model.encoder.depth" in said and "export the model again" in said
    (broken / "preprocessing.json").write_text(text.replace('"depth": 2', '"depth": 3'))
    assert used("predict", "--model", broken, *words) == 2
    assert "weights do not fit the model" in capsys.readouterr().err


def test_an_exported_model_is_the_target_encoder_and_the_predictor(workdir, folder, source, capsys):
    program, state, _ = reopened(workdir)
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "preprocessing.json",
        "README.md",
    }
    tensors = read_safetensors(folder / "model.safetensors")
    assert all(name.split(".")[0] in ("encoder", "predictor") for name in tensors)
    params = import_weights(tensors, program.config.model)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], jax.device_get(state.ema))
    jax.tree.map(
        np.testing.assert_array_equal,
        params["predictor"],
        jax.device_get(state.params["predictor"]),
    )
    card = (folder / "README.md").read_text()
    assert "step 0" in card and "8 x 32 x 32" in card
    scanners = [row["scanner"] for row in source.rows]
    assert all(f"{name} {scanners.count(name)}" in card for name in scanners)
    assert used("export", "--workdir", workdir, "--output", folder / "a.safetensors") == 2
    assert "give a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope": "interleaved"}, "model.rope 'interleaved'"),
        ({"volume": (8, 32, 64)}, "not square"),
        ({"patch": (4, 8, 16)}, "not square"),
        ({"supervise_layers": (0, 1)}, "several supervised levels"),
        ({"encoder": TransformerConfig(16, 2, 2, 2.97)}, "this mlp_ratio"),
    ],
)
def test_a_model_that_transformers_would_compute_otherwise_is_refused(changes, said):
    sizes = {"volume": (8, 32, 32), "patch": (4, 8, 8), "encoder": TransformerConfig(16, 2, 2)}
    assert to_transformers(ModelConfig(**sizes))["crop_size"] == 32
    with pytest.raises(ConfigError, match=said):
        to_transformers(ModelConfig(**(sizes | changes)))

"""Embeddings and exported weights of a V-JEPA3D run, through the commands, on tiny volumes."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jepa3d.data import VolumeSource
from jepa3d.model.jepa import encode
from jepa3d.vjepa2_weights import import_weights
from launch.cli import main
from tests.smoke.commands import RECIPE, prepare_synthetic
from training.checkpoint.first import write_first_checkpoint
from training.checkpoint.restore import restored
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


def test_a_file_is_embedded_as_its_prepared_record_is(data, workdir, tmp_path):
    source = VolumeSource(data / "records", "train")
    tokens, foreground = expected(workdir, source, 0)
    path = data / "dicom" / source.rows[0]["path"]
    target = tmp_path / "one.npz"
    arguments = ["--workdir", str(workdir), "--input", str(path), "--output", str(target)]
    assert main(["predict", *arguments]) == 0
    arrays, metadata = embeddings(target)
    assert arrays.keys() == {"tokens", "pooled", "foreground"}
    np.testing.assert_allclose(arrays["tokens"], tokens, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(arrays["foreground"], foreground)
    assert 0 < foreground.sum() < foreground.size
    np.testing.assert_allclose(
        arrays["pooled"], tokens[foreground].mean(axis=0), rtol=1e-4, atol=1e-5
    )
    assert metadata["sha256"] == source.rows[0]["sha256"] and metadata["encoder"] == "target"
    assert np.prod(metadata["token_grid"]) == len(tokens)


def test_a_model_is_used_without_its_records(data, workdir, tmp_path):
    """From a copy of the run whose config names a folder of records that does not exist."""
    alone = tmp_path / "run"
    shutil.copytree(workdir, alone)
    config = (alone / "config.json").read_text()
    (alone / "config.json").write_text(config.replace(str(data / "records"), str(data / "gone")))
    source = VolumeSource(data / "records", "train")
    volume = data / "dicom" / source.rows[0]["path"]
    found = []
    for run in (workdir, alone):
        target = tmp_path / run.parent.name / "one.npz"
        arguments = ["--workdir", str(run), "--input", str(volume), "--output", str(target)]
        assert main(["predict", *arguments]) == 0
        found.append(embeddings(target)[0]["tokens"])
    np.testing.assert_array_equal(*found)
    weights = tmp_path / "weights.safetensors"
    assert main(["export", "--workdir", str(alone), "--output", str(weights)]) == 0
    assert read_safetensors(weights)


def test_a_folder_gives_one_file_a_volume_and_names_what_was_skipped(
    data, workdir, tmp_path, capsys
):
    folder = tmp_path / "in"
    source = VolumeSource(data / "records", "train")
    for number in (0, 1):
        path = folder / f"sub{number}" / "scan.dcm"
        path.parent.mkdir(parents=True)
        shutil.copy(data / "dicom" / source.rows[number]["path"], path)
    np.save(folder / "flat.npy", np.zeros((2, 3), np.uint8))
    output = tmp_path / "out"
    arguments = ["--workdir", str(workdir), "--input", str(folder), "--output", str(output)]
    assert main(["predict", *arguments]) == 0
    said = capsys.readouterr().out
    assert "skipped flat.npy: unsupported_pixels" in said and "of 2 volumes" in said
    files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.npz"))
    assert files == ["sub0/scan.dcm.npz", "sub1/scan.dcm.npz"]
    tokens, _ = expected(workdir, source, 1)
    arrays, _ = embeddings(output / files[1])
    np.testing.assert_allclose(arrays["tokens"], tokens, rtol=1e-4, atol=1e-5)


def test_an_array_is_embedded_in_the_folder_settings_or_refused(data, workdir, tmp_path, capsys):
    """Plain arrays carry no spacing; the records of this run were prepared without one."""
    np.save(tmp_path / "a.npy", np.zeros((8, 64, 64), np.uint8))
    arguments = ["--input", str(tmp_path / "a.npy"), "--output", str(tmp_path / "a.npz")]
    assert main(["predict", "--workdir", str(workdir), *arguments]) == 2
    assert "skipped a.npy" in capsys.readouterr().err
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.parametrize(
    ("source", "said"), [("nowhere.dcm", "does not exist"), (".", "give a folder")]
)
def test_an_impossible_input_is_refused_before_anything_is_loaded(
    workdir, tmp_path, source, said, capsys
):
    arguments = ["--input", str(tmp_path / source), "--output", str(tmp_path / "a.npz")]
    assert main(["predict", "--workdir", str(workdir), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_exported_weights_are_the_target_encoder_and_the_predictor(workdir, tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    assert main(["export", "--workdir", str(workdir), "--output", str(path)]) == 0
    program, state, _ = reopened(workdir)
    tensors = read_safetensors(path)
    assert all(name.split(".")[0] in ("encoder", "predictor") for name in tensors)
    params = import_weights(tensors, program.config.model)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], jax.device_get(state.ema))
    jax.tree.map(
        np.testing.assert_array_equal,
        params["predictor"],
        jax.device_get(state.params["predictor"]),
    )
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    assert metadata["encoder"].startswith("target encoder") and metadata["step"] == "0"
    assert main(["export", "--workdir", str(workdir), "--output", str(tmp_path / "a.ply")]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err

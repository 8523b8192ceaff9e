"""Runs of V-JEPA3D through the commands: resume, signals, other meshes, evaluation, bad input."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.smoke.commands import losses
from tests.smoke.conftest import REPOSITORY, command_environment
from training.checkpoint.store import CheckpointReader


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """Work folder of an uninterrupted run on one device."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    command = [sys.executable, "-m", "launch.cli", "train", "--config", recipe, "--workdir"]
    result = subprocess.run(
        [*command, str(workdir)],
        cwd=REPOSITORY,
        env=command_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return workdir


def start(recipe, workdir, *more) -> subprocess.Popen:
    command = [sys.executable, "-m", "launch.cli", "train", "--config", recipe]
    return subprocess.Popen(
        [*command, "--workdir", str(workdir), *more],
        cwd=REPOSITORY,
        env=command_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process, step) -> str:
    """Reads the output until a step at or after `step` was logged."""
    text = ""
    for line in process.stderr:
        text += line
        found = re.match(r"step +(\d+)/", line)
        if found and int(found[1]) >= step:
            return text
    raise AssertionError(f"the run ended before step {step}:\n{text}")


def test_a_run_leaves_everything_that_the_design_names(finished):
    names = {path.name for path in finished.iterdir()}
    wanted = {"config.json", "metrics.jsonl", "checkpoints", "eval", "guards.json", "DONE"}
    assert wanted | {"report.html", "events.jsonl", "artifacts"} <= names
    rows = losses(finished)
    assert list(rows) == list(range(1, 13))
    metrics = json.loads((finished / "eval" / "12.json").read_text())
    assert {"loss", "skill_position", "skill_mean", "rankme", "rankme_centered"} <= set(metrics)
    assert len(list((finished / "artifacts" / "12").glob("*.png"))) > 0


@pytest.mark.slow
def test_killed_at_a_random_step_it_resumes_to_the_same_losses_to_the_last_bit(
    recipe, finished, tmp_path
):
    process = start(recipe, tmp_path)
    wait_for_step(process, 7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "DONE").exists()
    process = start(recipe, tmp_path)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert losses(tmp_path) == losses(finished)


@pytest.mark.slow
def test_sigterm_saves_and_ends_cleanly_and_the_run_goes_on_bit_for_bit(recipe, finished, tmp_path):
    process = start(recipe, tmp_path)
    wait_for_step(process, 3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert (tmp_path / "PREEMPTED").exists()
    saved = CheckpointReader(tmp_path).latest()
    assert saved == int((tmp_path / "PREEMPTED").read_text()) < 12
    process = start(recipe, tmp_path)
    process.communicate(timeout=200)
    assert losses(tmp_path) == losses(finished)
    assert (tmp_path / "DONE").exists() and not (tmp_path / "PREEMPTED").exists()


@pytest.mark.slow
def test_evaluate_on_another_mesh_gives_the_numbers_of_training(finished, podvision):
    during = json.loads((finished / "eval" / "12.json").read_text())
    result = podvision("evaluate", "--workdir", finished)
    assert result.returncode == 0, result.stderr
    after = json.loads((finished / "eval" / "12.json").read_text())
    (finished / "eval" / "12.json").write_text(json.dumps(during))
    assert after.keys() == during.keys()
    for name, value in during.items():
        assert after[name] == pytest.approx(value, rel=2e-4, abs=1e-5), name


def test_running_a_finished_run_again_changes_nothing(recipe, finished, podvision):
    before = losses(finished)
    result = podvision("train", "--config", recipe, "--workdir", finished)
    assert result.returncode == 0 and "were made before" in result.stderr
    assert losses(finished) == before and (finished / "DONE").exists()


def test_the_report_names_every_guard(finished):
    page = (finished / "report.html").read_text()
    for row in json.loads((finished / "guards.json").read_text()):
        assert row["name"] in page
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_overfit_refuses_what_is_not_better_than_constants_and_shows_every_gradient(
    recipe, podvision
):
    # Volumes of 8 x 32 x 32 voxels hold too little: 500 updates end at a skill of about 0.
    result = podvision(
        "overfit", "--config", recipe, "--examples", "4", "--updates", "60",
        "--config.optimizer.learning_rate=3e-3", "--config.optimizer.weight_decay=0.0",
        "--config.mask_preset=mask06",
    )  # fmt: skip
    assert "pass  zero-gradient" in result.stdout
    assert result.returncode == 3 and "FAIL  overfit" in result.stdout


@pytest.mark.slow
def test_overfit_of_a_config_that_cannot_learn_ends_with_3(recipe, podvision):
    result = podvision(
        "overfit", "--config", recipe, "--updates", "5", "--config.optimizer.learning_rate=1e-9"
    )
    assert result.returncode == 3 and "FAIL  overfit" in result.stdout


BAD = {
    "unknown key": (["--config.optimizer.learning_rat=1"], "did you mean learning_rate"),
    "unknown group": (["--config.optimzer.learning_rate=1"], "did you mean optimizer"),
    "wrong type": (["--config.batch_size=many"], "config.batch_size"),
    "not divisible": (["--config.accumulation=3"], "not divisible"),
    "missing folder": (["--config.data.folder=nowhere/at/all"], "nowhere/at/all"),
    "no target encoder": (["--config.ema.kind=none"], "target encoder"),
    "masks too large": (["--config.model.volume=(8,32,64)"], "prepare again"),
    "two units": (["--config.total.epochs=3", "--config.total.updates=9"], "exactly one of"),
    "too short": (["--config.evaluation.every.epochs=0.001"], "less than one update"),
    "unknown schedule": (["--config.optimizer.schedule.kind=cosin"], "cosin"),
    "mesh": (["--config.mesh.data=3"], "does not fit"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(case, recipe, tmp_path, podvision):
    changes, said = BAD[case]
    result = podvision("train", "--config", recipe, "--workdir", tmp_path / "run", *changes)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("podvision")
    assert not (tmp_path / "run").exists(), "a refused command leaves nothing"


def test_an_unwritable_work_folder_is_refused(recipe, tmp_path, podvision):
    (tmp_path / "file").write_text("")
    result = podvision("train", "--config", recipe, "--workdir", tmp_path / "file" / "run")
    assert result.returncode == 2 and "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_checkpoint_of_another_model_is_refused_with_the_difference(recipe, finished, podvision):
    result = podvision(
        "train", "--config", recipe, "--workdir", finished, "--config.model.encoder.dim=32",
        "--config.total.updates=20",
    )  # fmt: skip
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "model.encoder.dim" in result.stderr and "16" in result.stderr and "32" in result.stderr


def test_a_stage_with_other_dimensions_is_refused_leaf_by_leaf(
    recipe, finished, tmp_path, podvision
):
    result = podvision(
        "train", "--config", recipe, "--workdir", tmp_path, "--config.model.encoder.dim=32",
        f"--config.checkpoint.init_from={finished}",
    )  # fmt: skip
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert re.search(r"shape .*encoder", result.stderr)


def test_a_missing_checkpoint_is_named(finished, podvision):
    result = podvision("evaluate", "--workdir", finished, "--step", "7")
    assert result.returncode == 2 and "7" in result.stderr and "Traceback" not in result.stderr


def test_help_is_fast_and_loads_no_jax():
    began = time.perf_counter()
    code = "import sys, launch.cli; launch.cli.main(['--help']); assert 'jax' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert result.returncode == 0
    assert time.perf_counter() - began < 20  # a hang, not a speed test

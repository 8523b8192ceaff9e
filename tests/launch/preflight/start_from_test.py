"""What the run starts from is compared as a resume or a hand-off would, and nothing is read."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from launch.preflight.start_from import description_of, init_row, resume_row
from tests.training.toy import CONFIG, ToyTask, toy_program
from training.checkpoint.resume import saved_facts
from training.checkpoint.store import CheckpointStore
from training.config import CheckpointConfig, OptimizerConfig
from training.mesh import Layout, make_mesh
from training.typed import plain


class WideTask(ToyTask):
    def init(self, key):
        params, model_state = super().init(key)
        return params | {"extra": jnp.zeros((3, 3))}, model_state


def program_of(task=ToyTask, **changes):
    config = dataclasses.replace(CONFIG, batch_size=8, **changes)
    return toy_program(task(config), config, Layout(make_mesh(config.mesh)))


@pytest.fixture
def run(tmp_path):
    """The work folder of a run that saved at step 40 of 100."""
    program = program_of()
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
    store = CheckpointStore(tmp_path / "run", CheckpointConfig())
    facts = saved_facts(program.task, program.task.sources().train)
    store.save(40, state, {}, config=plain(program.config), task=facts)
    store.close()
    return tmp_path / "run"


def test_a_run_goes_on_from_its_own_checkpoint(run):
    row = resume_row(program_of(), program_of().config, run)
    assert row is not None and row.state == "pass", row
    assert "resumes from step 40" in row.sentence and "60 updates left" in row.sentence


def test_a_folder_without_a_checkpoint_has_nothing_to_resume(tmp_path):
    assert resume_row(program_of(), CONFIG, tmp_path) is None


def test_a_changed_config_is_refused_as_a_resume_would(run):
    program = program_of(optimizer=OptimizerConfig(learning_rate=0.5))
    row = resume_row(program, program.config, run)
    assert row is not None and row.state == "FAIL"
    assert "config.optimizer.learning_rate from 0.0001 to 0.5" in row.sentence


def test_another_model_is_refused_array_by_array(run):
    row = resume_row(program_of(WideTask), program_of().config, run)
    assert row is not None and row.state == "FAIL" and "does not fit" in row.sentence
    assert any("extra" in line for line in row.lines)


def test_a_fresh_run_takes_nothing_over():
    assert init_row(program_of()).state == "skipped"


def test_an_earlier_run_must_fit(run):
    start = CheckpointConfig(init_from=str(run))
    assert init_row(program_of(checkpoint=start)).state == "pass"
    row = init_row(program_of(WideTask, checkpoint=start))
    assert row.state == "FAIL" and any("extra" in line for line in row.lines)
    narrowed = dataclasses.replace(start, init_exclude=("params/extra",))
    assert init_row(program_of(WideTask, checkpoint=narrowed)).state == "pass"


def test_an_earlier_run_must_be_there(tmp_path):
    row = init_row(program_of(checkpoint=CheckpointConfig(init_from=str(tmp_path / "none"))))
    assert row.state == "FAIL" and "no complete checkpoint latest" in row.sentence


def test_a_stage_is_compared_with_what_the_one_before_will_leave():
    later = CheckpointConfig(init_from="previous")
    before = description_of(program_of(), "first", {})
    row = init_row(program_of(checkpoint=later), before)
    assert row.state == "pass" and "stage first, still to run" in row.sentence
    assert init_row(program_of(WideTask, checkpoint=later), before).state == "FAIL"

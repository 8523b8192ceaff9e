"""Both systems read each key that their smoke recipes set; a key that nothing reads is found."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.smoke.conftest import REPOSITORY, command_environment

TRAIN = """
import json, sys
from pathlib import Path
import jax
from training.config_reads import verdict, watched
from training.loop import fit
from training.registry import load_config, make_task
jax.config.update("jax_disable_most_optimizations", True)
recipe, workdir, *overrides = sys.argv[1:]
config = watched(load_config(recipe, overrides))
fit(make_task(config), Path(workdir))
found = verdict(config)
print("\\n" + json.dumps([found.passed, found.sentence]))
"""
SHORT = ["total.updates=4", "evaluation.every.updates=4", "checkpoint.every.updates=4"]
SHORT += ["evaluation.at_start=False"]
OVERRIDES = {
    # Refined after two updates and after four.
    "splats": [
        "densify.refine_start_iter=1",
        "densify.refine_every=2",
        "updates_per_call=2",
        "model.initial_capacity=512",
        "model.cap_max=2048",
        "render.pair_capacity=16384",
        "model.initialization=random",
        "model.random_points=500",
    ],
    "jepa3d": [
        "model.volume=(8,32,32)",
        "model.patch=(4,8,8)",
        "model.encoder.dim=24",
        "model.encoder.depth=2",
        "model.predictor.dim=24",
        "model.predictor.depth=1",
    ],
}
PLANTED = {
    "splats": ("densify.noise_lr=1e4", "config.densify.noise_lr = 10000.0"),
    "jepa3d": ("loss.dense_weight=0.5", "config.loss.dense_weight = 0.5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("system", ["splats", "jepa3d"])
def test_the_smoke_recipe_sets_no_dead_key_and_a_planted_one_is_found(system, request, tmp_path):
    recipe = f"configs/{system}/smoke.py"
    if system == "jepa3d":
        recipe = f"{recipe}:{request.getfixturevalue('tiny_oct')}"
    planted, named = PLANTED[system]
    overrides = [*SHORT, *OVERRIDES[system], planted]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, recipe, str(tmp_path / "run"), *overrides],
        cwd=REPOSITORY,
        env=command_environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    passed, sentence = json.loads(done.stdout.splitlines()[-1])
    assert not passed
    assert sentence.startswith(f"nothing reads {named}, so it has no effect")

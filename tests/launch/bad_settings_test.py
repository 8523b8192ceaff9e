"""Settings that no run could use: each is refused in one sentence before anything is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import ConfigError
from training.registry import load_config

REPOSITORY = Path(__file__).parents[2]
JEPA, SPLATS = "configs/jepa3d/smoke.py", "configs/splats/smoke.py"
HUGE = "9" * 40

# Command-line overrides and what is wanted instead. The sentence must name the key, too.
SHARED = [
    ("batch_size=0", "from 1 to 1,048,576"),
    ("batch_size=-8", "from 1 to 1,048,576"),
    (f"batch_size={HUGE}", "from 1 to 1,048,576"),
    ("batch_size=1e3", "of type int"),
    ("batch_size=8.0", "of type int"),
    ("batch_size=nan", "cannot be read as int"),
    ("batch_size=None", "of type int"),
    ("batch_size=True", "of type int"),
    ("batch_size=", "cannot be read as int"),
    ("accumulation=0", "from 1 to"),
    ("accumulation=1000000000", "from 1 to"),
    ("updates_per_call=0", "from 1 to 10,000"),
    ("updates_per_call=1000000000", "from 1 to 10,000"),
    ("seed=-1", "from 0 to 9,223,372,036,854,775,807"),
    ("seed=9223372036854775808", "from 0 to 9,223,372,036,854,775,807"),
    (f"seed={'9' * 5000}", "cannot be read as int"),
    ("seed=0.5", "of type int"),
    ("total.updates=0", "from 1 to 500,000,000"),
    ("total.updates=-5", "from 1 to 500,000,000"),
    ("total.updates=2.5", "of type int"),
    ("total.updates=1000000000000", "from 1 to 500,000,000"),
    (f"total.updates={HUGE}", "from 1 to 500,000,000"),
    ("total.epochs=0", "above 0"),
    ("total.epochs=-1", "above 0"),
    ("total.epochs=1e999", "finite, above 0"),
    ("total.examples=0", "from 1 to"),
    (f"total.examples={HUGE}", "from 1 to"),
    ("total=100", "is a group of keys; set one of updates, epochs, examples"),
    ("total.steps=100", "unknown key"),
    ("optimizer.learning_rate=0", "above 0"),
    ("optimizer.learning_rate=-1e-4", "above 0"),
    ("optimizer.learning_rate=1e999", "finite"),
    ("optimizer.learning_rate=1e6", "at most 1000"),
    ("optimizer.learning_rate=fast", "cannot be read as float"),
    ("optimizer.learning_rate=None", "of type float"),
    ("optimizer.b1=1", "at least 0 and below 1"),
    ("optimizer.b1=-0.1", "at least 0 and below 1"),
    ("optimizer.b2=1", "at least 0 and below 1"),
    ("optimizer.b2=1.5", "at least 0 and below 1"),
    ("optimizer.eps=0", "from 1e-30 to 1"),
    ("optimizer.eps=-1e-8", "from 1e-30 to 1"),
    ("optimizer.eps=1e-300", "from 1e-30 to 1"),
    ("optimizer.weight_decay=-0.1", "from 0 to 1000"),
    ("optimizer.weight_decay=1e999", "finite"),
    ("optimizer.clip_norm=0", "1e-30 or more"),
    ("optimizer.clip_norm=-1", "1e-30 or more"),
    ("optimizer.clip_norm=1e999", "finite"),
    ("optimizer.schedule.kind=cosine", "warmup_cosine, constant, warmup_stable_decay"),
    ("optimizer.schedule.warmup_fraction=1.5", "from 0 to 1"),
    ("optimizer.schedule.warmup_fraction=-0.1", "from 0 to 1"),
    ("optimizer.schedule.final_fraction=-0.1", "from 0 to 1"),
    ("optimizer.schedule.final_fraction=2", "from 0 to 1"),
    ("optimizer.schedule.decay_fraction=0", "from 1e-06 to 1"),
    ("optimizer.schedule.decay_fraction=2", "from 1e-06 to 1"),
    ("optimizer.schedule.warmup_updates=0", "1 or more"),
    (f"optimizer.schedule.warmup_updates={HUGE}", "fit 32 bits, 1 or more"),
    ("optimizer.schedule.warmup_start=-0.5", "from 0 to 1"),
    ("optimizer.schedule=constant", "is a group of keys; set one of kind"),
    ("optimizer.groups=()", "has groups by name"),
    ("optimizer.groups.0.learning_rate=None.x", "cannot be read as float"),
    ("optimizer.groups.all.learning_rate=0", "above 0"),
    ("optimizer.groups.all.weight_decay=-1", "from 0 to 1000"),
    ("optimizer.groups.all.lr=1", "unknown key"),
    ("optimizer.decay_rules=kernel", "cannot be read as tuple"),
    ("optimizer.decay_rules=((1,2),)", "of type str"),
    ("optimizer.lr=1", "unknown key"),
    ("ema.kind=cosin", "none, constant, linear, cosine or warmup"),
    ("ema.start=1.5", "from 0 to 1"),
    ("ema.end=-0.1", "from 0 to 1"),
    ("ema.tau=0", "above 0"),
    ("ema.tau=-5", "above 0"),
    ("mesh.data=-2", "from -1 to"),
    (f"mesh.fsdp={HUGE}", "from -1 to"),
    ("mesh.fsdp_min_bytes=-1", "0 or more"),
    ("mesh.rules=kernel", "cannot be read as tuple"),
    ("loader.workers=0", "from 1 to 1,024"),
    ("loader.workers=-1", "from 1 to 1,024"),
    ("loader.workers=1000000000", "from 1 to 1,024"),
    ("loader.processes=1000000000", "from 0 to 1,024"),
    ("loader.prefetch=0", "from 1 to 64"),
    ("loader.prefetch=1000000000", "from 1 to 64"),
    ("loader.max_replaced_fraction=1.5", "from 0 to 1"),
    ("evaluation.batch_size=0", "from 1 to"),
    (f"evaluation.batch_size={HUGE}", "from 1 to"),
    ("evaluation.every.updates=0", "from 1 to 500,000,000"),
    ("evaluation.every=100", "is a group of keys"),
    ("evaluation.at_start=yes", "must be True or False"),
    ("checkpoint.every.updates=-1", "from 1 to 500,000,000"),
    ("checkpoint.keep_latest=0", "1 or more"),
    ("checkpoint.keep_every=0", "1 or more"),
    ("checkpoint.best_mode=highest", "max or min"),
    ("log.every=0", "1 or more"),
    (f"log.every={HUGE}", "fit 32 bits, 1 or more"),
    ("log.wandb=1", "must be True or False"),
    ("guards.off=(nonfinite", "cannot be read as tuple"),
    ("guards.max_consecutive_skips=0", "1 or more"),
    ("guards.gradient_ratio=0", "above 0"),
    ("guards.gradient_ratio=1e999", "finite"),
    ("guards.hang_seconds=-1", "above 0"),
    ("guards.recorder_batches=1000000000", "from 1 to 1,000"),
    ("batchsize=8", "did you mean batch_size?"),
    ("batch_size", "has no value; write --config.batch_size=VALUE"),
    ("batch_size.x=8", "is a single value; it has no key 'x'"),
    ("=8", "unknown key"),
]
OF_JEPA = [
    ("model.patch=(0,8,8)", "from 1 to 1,024"),
    ("model.patch=(-4,8,8)", "from 1 to 1,024"),
    ("model.patch=(8,8)", "must have 3 entries"),
    ("model.patch=8", "must have 3 entries"),
    ("model.volume=(0,64,64)", "from 1 to 8,192"),
    ("model.volume=(15,64,64)", "is no multiple of patch"),
    ("model.encoder.dim=0", "from 1 to"),
    ("model.encoder.heads=5", "does not split into 5 heads"),
    ("model.encoder.mlp_ratio=0", "above 0"),
    ("model.rope=spiral", "tiled or interleaved"),
    ("model.dtype=float16", "float32 or bfloat16"),
    ("model.attention=flash3", "auto, plain, chunked"),
    ("model.supervise_layers=(9,)", "must rise and lie in 0..3"),
    ("model.channels=0", "from 1 to"),
    ("mask_preset=mask60", "default or mask06"),
    ("masks=[{'blocks': 0}]", "from 1 to 1,024"),
    ("masks=[{'aspect_ratio': (2, 1)}]", "must be a rising pair"),
    ("masks=[{'block': 1}]", "did you mean blocks?"),
    ("masks.0.blocks=2", "is a single value"),
    ("loss.exponent=0", "from 1 to 4"),
    ("masks=[{'retina_context': 1}]", "at least 0 and below 1"),
    ("data.sigma_floor=0", "above 0"),
    ("data.augment.lateral_flip=2", "from 0 to 1"),
    ("data.augment.crop_scale=(1.0,0.5)", "must be a rising pair"),
    ("data.augment.crop_scale=(0,1)", "above 0"),
]
OF_SPLATS = [
    ("scene.factor=0", "from 1 to 64"),
    ("scene.scale_factor=0", "above 0"),
    ("scene.kind=colmapp", "colmap, nerfstudio or blender"),
    ("scene.alpha=black", "mask or background"),
    ("scene.split.mode=random", "auto, every_k, fraction or file"),
    ("scene.split.every=1", "2 or more"),
    ("scene.split.fraction=1", "above 0 and below 1"),
    ("scene.split.mode=file", "split.path is empty"),
    ("model.sh_degree=4", "0, 1, 2 or 3"),
    ("model.init_opacity=1", "above 0 and below 1"),
    ("model.cap_max=0", "from 1 to"),
    (f"model.cap_max={HUGE}", "from 1 to"),
    ("model.initial_capacity=0", "from 1 to"),
    ("losses.ssim=1.5", "from 0 to 1"),
    ("losses.depth=-1", "from 0 to"),
    ("densify.strategy=adaptive", "mcmc, default or none"),
    ("densify.refine_every=0", "1 or more"),
    ("densify.refine_start_iter=-1", "0 or more"),
    ("densify.reset_every=2960", "must be a multiple of config.densify.refine_every = 50"),
    ("densify.grow_grad2d=0", "above 0"),
    ("densify.grow_grad2d=1e999", "finite"),
    ("densify.prune_opa=1", "above 0 and below 1"),
    ("densify.growth=0.9", "from 1 to 2"),
    ("densify.grow_grad_2d=1", "did you mean grow_grad2d?"),
    ("render.tile_size=7", "0, 8 or 16"),
    ("render.backend=cuda", "auto, xla"),
    ("render.pair_capacity=0", "from 1 to"),
    ("render.exchange_capacity=-1", "from 0 to"),
    ("metrics.lpips=resnet", "empty, alex, vgg or vgg_unnormalized"),
    ("metrics.lpips=alex", "config.metrics.lpips_weights is not"),
    ("batch_scaling=linear", "none or sqrt"),
    ("optimizer.groups.means.learning_rate=1e9", "above 0 and at most 1000"),
]
CASES = [
    *((SPLATS, *case) for case in SHARED),
    *((JEPA, *case) for case in OF_JEPA),
    *((SPLATS, *case) for case in OF_SPLATS),
]


@pytest.mark.parametrize(("recipe", "override", "wanted"), CASES, ids=lambda text: text[:40])
def test_a_setting_that_no_run_could_use_is_refused_by_its_key(recipe, override, wanted):
    with pytest.raises(ConfigError) as caught:
        load_config(str(REPOSITORY / recipe), [override])
    sentence = str(caught.value)
    assert wanted in sentence
    assert "\n" not in sentence and len(sentence) < 400
    key = override.partition("=")[0].removeprefix("masks.")
    last = key.rpartition(".")[2] if not key.startswith("optimizer.groups") else "groups"
    assert last in sentence


def test_there_are_as_many_command_lines_as_were_tried_by_hand():
    assert len(CASES) == len(set(CASES)) >= 129


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ("{'system': 'splats', 3: 4}", "config has the key 3, which is no name"),
        ("{'system': 'splats', 'model': {3: 4}}", "config.model has the key 3, which is no name"),
        ("{'system': 'splats', 'total': {'updates': 1, 'epochs': 1}}", None),
        ("{'system': 'splats', 'batch_size': float('nan')}", "must be of type int"),
        ("{'system': 'splats', 'scene': {'scale_factor': float('nan')}}", "must be finite"),
        ("{'system': 'splats', 'scene': {'scale_factor': 10**400}}", "is larger than any float"),
        ("{'system': 'splats', 'optimizer': {'groups': [{}]}}", "must be a group of keys with a"),
        ("{'system': 'splats', 'optimizer': None}", "must be a group of keys, not None"),
        ("{'system': 'jepa3d', 'masks': {'blocks': 1}}", "must be a sequence"),
        ("{'system': 'jepa3d', 'model': {'encoder': {}}}", None),
    ],
)
def test_a_recipe_is_refused_like_a_command_line(tmp_path, values, wanted):
    path = tmp_path / "recipe.py"
    path.write_text(f"def get_config(arg):\n    return {values}\n")
    if wanted is None:  # Only the data say how long that is; an empty group is its default.
        load_config(str(path))
        return
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert wanted in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override", ["total.updates=1000000000000", "loader.workers=0", "no.such.key=3"]
)
def test_a_whole_command_ends_with_one_sentence_and_leaves_nothing_behind(tmp_path, override):
    command = ["train", "--config", SPLATS, "--workdir", tmp_path / "run", f"--config.{override}"]
    ended = subprocess.run(
        [sys.executable, "-m", "launch.cli", *map(str, command)],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if "config." in line]
    assert line.startswith("podvision: error: ")
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()

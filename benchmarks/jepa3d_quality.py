"""Does pretraining help? Planted disease, read off frozen features by a ridge probe.

Phantoms with drusen of three sizes, an outer loss and a thickness (`jepa3d.phantom`) are written as
DICOM and prepared. The encoder is pretrained, without labels, on the training participants; the
probe (`jepa3d.probe`: folds by participant) is asked about the others. Beside the pretrained
encoder stand the same encoder with the weights that it began with, and the voxels of the patches
themselves. All three are pooled alike: mean and standard deviation over the foreground tokens.

Run: python benchmarks/jepa3d_quality.py [--participants 300] [--seeds 0 1 2] [--output DIR]
         [--config.total.updates=N ...]

Prints area under the ROC curve (0.5 is chance) of each disease against none of it, R2 of the
thickness, and medians over the seeds. Data and runs are kept in DIR and used again.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

# This file has the name of a package's benchmark: look for packages one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jepa3d.data.source import VolumeSource  # noqa: E402
from jepa3d.evaluation import pooled_tokens  # noqa: E402
from jepa3d.inputs import model_inputs  # noqa: E402
from jepa3d.labels import Labels, read_labels  # noqa: E402
from jepa3d.model.jepa import encode  # noqa: E402
from jepa3d.model.patches import patchify  # noqa: E402
from jepa3d.probe import probe  # noqa: E402
from jepa3d.synthetic import write_tree  # noqa: E402
from launch import cli  # noqa: E402
from training.checkpoint.restore import restored  # noqa: E402
from training.loop import fit  # noqa: E402
from training.registry import load_config, make_task  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("pretrained", "at its start", "patch voxels")
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description="What pretraining adds on planted disease.")
    parser.add_argument("--config", default=str(ROOT / "configs/jepa3d/phantom.py"))
    parser.add_argument("--participants", type=int, default=300, help="two volumes each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--step", default="latest", choices=("latest", "best"))
    parser.add_argument("--output", help="folder that keeps data and runs")
    args, overrides = parser.parse_known_args()
    folder = Path(args.output or tempfile.mkdtemp())
    records = prepared(folder, args.participants)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for seed in args.seeds:
        settings = [one.removeprefix("--config.") for one in overrides] + [f"seed={seed}"]
        task = make_task(load_config(f"{args.config}:{records}", settings))
        workdir = folder / f"run_{seed}"
        if not (workdir / "DONE").exists():
            fit(task, workdir, [], [])
        for side, features in features_of(task, workdir, args.step).items():
            found[side].append(scores(features, folder / "dicom" / "participants.tsv", task))
            row = "  ".join(f"{name} {value:.3f}" for name, value in found[side][-1].items())
            print(f"seed {seed}  {side:<13} {row}", flush=True)
    report(found)


def prepared(folder: Path, participants: int) -> Path:
    """The folder of records; made where it is missing."""
    records = folder / "records"
    if not records.exists():
        write_tree(folder / "dicom", participants=participants, faulty_files=False, diseased=True)
        shapes = ["--shape", "16,64,64", "--patch", "4,8,8"]
        command = ["prepare", "jepa3d", "--input", f"{folder / 'dicom'}", "--output", f"{records}"]
        if code := cli.main([*command, *shapes]):
            raise SystemExit(code)
    return records


def held_out(task: Any) -> list[VolumeSource]:
    """The volumes that nothing was trained on."""
    data, volume = task.config.data, task.config.model.volume
    return [VolumeSource(data.folder, split, volume) for split in ("eval", "test")]


def features_of(task: Any, workdir: Path, step: str) -> dict[str, np.ndarray]:
    """[volumes, 2 D] of each side, for all held-out volumes."""
    model, data = task.config.model, task.config.data
    program, state, _ = restored(workdir, step)
    start = program.initial_state()

    @jax.jit
    def pooled(encoders: Any, batch: dict[str, jax.Array]) -> list[jax.Array]:
        seen = model_inputs(batch, None, model, data)
        tokens = [encode(model, encoder, seen.volumes) for encoder in encoders]
        tokens.append(patchify(seen.volumes, model.patch))
        return [jnp.concatenate(pooled_tokens(one, seen.foreground_BxN), axis=1) for one in tokens]

    rows: list[list[np.ndarray]] = [[], [], []]
    with jax.set_mesh(program.layout.mesh):
        for source in held_out(task):
            for first in range(0, len(source), BATCH):
                places = np.minimum(np.arange(first, first + BATCH), len(source) - 1)
                examples = [source[int(place)] for place in places]
                batch = {name: np.stack([one[name] for one in examples]) for name in examples[0]}
                count = min(BATCH, len(source) - first)
                for side, values in zip(rows, pooled((state.ema, start.ema), batch)):
                    side.append(np.asarray(values)[:count])
    return {name: np.concatenate(side) for name, side in zip(SIDES, rows)}


def scores(features: np.ndarray, table: Path, task: Any) -> dict[str, float]:
    """What the probe finds of each label."""
    volumes = [row for source in held_out(task) for row in source.rows]
    drusen, loss, thickness = read_labels(
        str(table), ("drusen", "outer_loss", "thickness"), volumes
    )
    named = {f"{size} drusen": _against(drusen, size) for size in ("large", "medium", "small")}
    named |= {"outer loss": loss, "thickness R2": thickness}
    return {name: probe(features, labels) for name, labels in named.items()}


def _against(labels: Labels, name: str) -> Labels:
    """The volumes of one class and those with none."""
    place, none = labels.classes.index(name), labels.classes.index("none")
    known = labels.known & np.isin(labels.values, (place, none))
    values = (labels.values == place).astype(np.float64)
    return dataclasses.replace(labels, known=known, values=values, classes=("none", name))


def report(found: dict[str, list[dict[str, float]]]) -> None:
    names = list(found[SIDES[0]][0])
    print(f"\n{'median':<14}" + "".join(f"{name:>15}" for name in names))
    medians = {
        side: [statistics.median(row[name] for row in rows) for name in names]
        for side, rows in found.items()
    }
    for side, values in medians.items():
        print(f"{side:<14}" + "".join(f"{value:>15.3f}" for value in values))
    for side in SIDES[1:]:
        gained = [ours - other for ours, other in zip(medians[SIDES[0]], medians[side])]
        print(f"{'- ' + side:<14}" + "".join(f"{value:>+15.3f}" for value in gained))


if __name__ == "__main__":
    main()

"""The real update of an RT-DETR recipe, compiled for a TPU slice on a machine without a TPU.

Run: python benchmarks/rtdetr_compile.py [--config configs/rtdetr/v4_32.py] [--json]
         [--size 640 640] [--sampling auto gather packed onehot] [config.field=value ...]

Needs libtpu (`pip install -e '.[tpu]'`). The columns are those of `jepa3d_compile.py`; the weights
that the recipe starts from, and the data, are not looked at: 80 classes stand for them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# This file has the name of a package of ours: look for packages one folder up.
sys.path[0] = str(ROOT)

from benchmarks import jepa3d_compile as common  # noqa: E402

COCO_IMAGES, COCO_CLASSES = 118_287, 80
SAMPLING = ("auto", "gather", "packed", "onehot")


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile an RT-DETR update for a TPU v4-32.")
    parser.add_argument("--config", default="configs/rtdetr/v4_32.py")
    parser.add_argument("--size", type=int, nargs=2, help="height and width; default: data.size")
    parser.add_argument("--sampling", nargs="+", choices=SAMPLING, default=["auto"])
    parser.add_argument("--json", action="store_true", help="one JSON object a line, no table")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="such as batch_size=64")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(compile_update(args.config, args.size, args.overrides)))
        return 0
    if importlib.util.find_spec("libtpu") is None:
        print("libtpu is not installed; run: pip install -e '.[tpu]'", file=sys.stderr)
        return 2
    columns = {name: form for name, form in common.COLUMNS.items() if name != "kernel ms"}
    if not args.json:
        print("| sampling | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for sampling in args.sampling:
        size = ["--size", *map(str, args.size)] if args.size else []
        changed = [f"model.decoder.sampling={sampling}", *args.overrides]
        command = [sys.executable, __file__, "--child", "--config", args.config, *size, *changed]
        figures = _in_child(command) | {"remat": sampling}
        cells = [form.format(**figures) for form in columns.values()] if "flops" in figures else []
        row = f"| {sampling} | " + " | ".join(cells or [figures.get("refused", "")]) + " |"
        print(json.dumps(figures) if args.json else row, flush=True)
    return 0


def _in_child(command: list[str]) -> dict[str, Any]:
    environment = os.environ | common.ISOLATED
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def compile_update(config_file: str, size: list[int] | None, overrides: list[str]) -> dict:
    """Compiles one update for a v4-32 and reads what the compiler says of it."""
    import jax
    from jax.experimental import topologies

    from training.mesh import Layout, make_mesh
    from training.program import Program
    from training.registry import load_config, make_task

    # The scales are data's: one canvas is compiled.
    config = load_config(config_file, [*overrides, "data.scales=()"])
    names = [f"class {number}" for number in range(COCO_CLASSES)]
    metadata = {"classes": names, "source_ids": list(range(COCO_CLASSES))}
    task = make_task(config).with_metadata(metadata)
    devices = topologies.get_topology_desc(**common.V4_32).devices  # pyright: ignore
    program = Program(task, Layout(make_mesh(config.mesh, devices)), COCO_IMAGES)
    canvas = tuple(size) if size else config.data.size  # pyright: ignore
    lowered = program.lower(variant=canvas)
    figures: dict[str, Any] = {"canvas": list(canvas), "jax": jax.__version__}
    before = common.cpu_seconds()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "memory" not in str(error):
            raise
        return figures | {"refused": " ".join(str(error).split())[:300]}
    figures["compile_seconds"] = common.cpu_seconds() - before
    return figures | common.memory_figures(compiled) | common.cost_figures(compiled)


if __name__ == "__main__":
    sys.exit(main())

"""The real update of an RT-DETR recipe, compiled for a TPU slice on a machine without a TPU.

Run: python benchmarks/rtdetr_compile.py [--config configs/rtdetr/v4_32.py] [--json]
         [--size 640 640] [--sampling auto gather packed onehot] [config.field=value ...]

Needs libtpu (`pip install -e '.[tpu]'`). The columns are those of `jepa3d_compile.py`; the weights
that the recipe starts from, and the data, are not looked at: COCO's numbers stand for them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# This file has the name of a package of ours: look for packages one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import jepa3d_compile as common  # noqa: E402
from launch.preflight.compiler import HOW_TO_INSTALL, has_libtpu  # noqa: E402
from launch.preflight.stand_in import stand_in_for  # noqa: E402
from training.registry import load_config  # noqa: E402

SAMPLING = ("auto", "gather", "packed", "onehot")


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile an RT-DETR update for a TPU v4-32.")
    parser.add_argument("--config", default="configs/rtdetr/v4_32.py")
    parser.add_argument("--size", type=int, nargs=2, help="height and width; default: data.size")
    parser.add_argument("--sampling", nargs="+", choices=SAMPLING, default=["auto"])
    parser.add_argument("--json", action="store_true", help="one JSON object a line, no table")
    parser.add_argument("overrides", nargs="*", help="such as batch_size=64")
    args = parser.parse_args()
    if not has_libtpu():
        print(HOW_TO_INSTALL, file=sys.stderr)
        return 2
    if not args.json:
        print(common.header("sampling"))
    stand_in = stand_in_for(load_config(args.config, args.overrides))
    # One canvas is compiled: the scales would have the largest.
    canvas = [f"data.size=({args.size[0]},{args.size[1]})"] if args.size else []
    for sampling in args.sampling:
        changed = [f"model.decoder.sampling={sampling}", "data.scales=()", *canvas]
        figures = common.update_figures(args.config, [*changed, *args.overrides], stand_in)
        print(json.dumps(figures) if args.json else common.row(sampling, figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One host of an evaluation of a detector; prints its metrics and tables as one line of JSON."""

from __future__ import annotations

import dataclasses
import json

import jax

from rtdetr import inference
from rtdetr.evaluation import evaluate
from tests.rtdetr.color_detector import config_of, detect, source_of, state_of
from tests.rtdetr.data.memory_dataset import MemoryDataset, blocks
from training import distributed
from training.config import EvaluationConfig, MeshConfig
from training.mesh import Layout, make_mesh

IMAGES = 21  # in batches of 8: the last one is filled up


class OfAllSizes(MemoryDataset):
    """Says that objects are small, medium and large in turn, so that all numbers are defined."""

    def objects(self, index):
        objects = super().objects(index)
        return dataclasses.replace(objects, areas=objects.areas * 10.0 ** (index % 3))


def evaluated(layout: Layout) -> dict:
    """What an evaluation says on this host; the network is the stand-in."""
    dataset = OfAllSizes(blocks(IMAGES, most_objects=2).entries)
    config = dataclasses.replace(config_of(), evaluation=EvaluationConfig(batch_size=8))
    # The weights of the last update are off by a twentieth of the canvas.
    state = state_of(0.05, average=0.0)
    with jax.set_mesh(layout.mesh):
        source = source_of(dataset, config)
        result = evaluate(config, dataset.classes, state, source, layout)
    tables = {name: table.rows for name, table in result.tables.items()}
    return {"metrics": result.metrics, "tables": tables, "images": sorted(result.images)}


def main() -> int:
    distributed.initialize()
    inference.detect = detect
    print("result", json.dumps(evaluated(Layout(make_mesh(MeshConfig())))), flush=True)
    return 0


if __name__ == "__main__":
    code = distributed.exit_hook(main)
    if code:
        distributed.leave(code)

"""`--format stablehlo`: `model.stablehlo` for any number of images on CPU, GPU and TPU.

The file is that of `jax.export`: StableHLO and what surrounds it, read by
`jax.export.deserialize(bytes).call(images, sizes)`. `model.json` says the rest.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from rtdetr.graphs.check import example_of, verified
from rtdetr.graphs.detection import graph_of
from rtdetr.graphs.facts import facts
from rtdetr.graphs.rescore import rescored
from rtdetr.inference import best_weights
from rtdetr.predict import with_dials

if TYPE_CHECKING:
    from rtdetr.task import DetectorTask
    from training.program import Program
    from training.state import TrainState

PLATFORMS = ("cpu", "cuda", "tpu")
FILE, FACTS = "model.stablehlo", "model.json"


def write(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes the folder; returns a line that says what is in it."""
    task: DetectorTask = program.task  # type: ignore[assignment]
    config = with_dials(task.config, args)
    graph = graph_of(config, jax.device_get(best_weights(state)))
    (batch,) = jax_export.symbolic_shape("batch")
    shapes = (
        jax.ShapeDtypeStruct((batch, *config.data.size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((batch, 2), jnp.int32),
    )
    exported = jax_export.export(jax.jit(graph), platforms=PLATFORMS)(*shapes)
    path = args.output / FILE
    path.write_bytes(exported.serialize())
    described = facts(config, task.classes, step, "any", args) | {"platforms": list(PLATFORMS)}
    (args.output / FACTS).write_text(json.dumps(described, indent=1) + "\n")
    example = example_of(config, 1)
    again = jax_export.deserialize(bytearray(path.read_bytes()))
    answers = [np.asarray(x) for x in again.call(example.images, example.sizes)]
    report = verified(answers, graph, example, FILE)
    if args.verify:
        report += f"; {rescored(again.call, graph, config, config.evaluation.batch_size, FILE)}"
    size = path.stat().st_size / 1e6
    return [f"step {step}: {size:.1f} MB written to {path} ({', '.join(PLATFORMS)}): {report}"]

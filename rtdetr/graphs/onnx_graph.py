"""`--format onnx`: `model.onnx` for a fixed number of images, and `model.json`.

Norms are folded into convolutions and all numbers are fp32. What `model.json` says is in the
metadata of the model too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from rtdetr.graphs.check import example_of, verified
from rtdetr.graphs.detection import INPUTS, OUTPUTS, graph_of
from rtdetr.graphs.facts import facts
from rtdetr.graphs.rescore import rescored
from rtdetr.graphs.to_onnx.convert import convert
from rtdetr.inference import Weights, best_weights
from rtdetr.model.folding import folded
from rtdetr.predict import with_dials
from training.errors import InputError

if TYPE_CHECKING:
    from rtdetr.config import Config
    from rtdetr.task import DetectorTask
    from training.program import Program
    from training.state import TrainState

FILE, FACTS = "model.onnx", "model.json"
INSTALL = "install it with pip install 'podvision[export]'"


def write(program: Program, state: TrainState, step: int, args: argparse.Namespace) -> list[str]:
    """Writes the folder; returns a line that says what is in it.

    Raises:
      InputError: the package onnx is not installed, or the model answers otherwise.
    """
    if not _installed("onnx"):
        raise InputError(f"--format onnx needs the package onnx; {INSTALL}")
    task: DetectorTask = program.task  # type: ignore[assignment]
    config, batch = with_dials(task.config, args), args.batch or 1
    weights = jax.device_get(best_weights(state))
    described = facts(config, task.classes, step, batch, args)
    model = model_of(config, weights, batch, described)
    path = args.output / FILE
    path.write_bytes(model.SerializeToString())
    (args.output / FACTS).write_text(json.dumps(described, indent=1) + "\n")
    line = f"step {step}: {path.stat().st_size / 1e6:.1f} MB written to {path}"
    if not _installed("onnxruntime"):
        if args.verify:
            raise InputError(f"--verify needs the package onnxruntime; {INSTALL}")
        return [f"{line}; not verified, because the package onnxruntime is missing; {INSTALL}"]
    import onnxruntime

    example = example_of(config, batch)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(images: np.ndarray, sizes: np.ndarray) -> Any:
        return session.run(None, dict(zip(INPUTS, (images, sizes))))

    # The weights as they were trained: folding is verified with the rest.
    graph = graph_of(config, weights, "float32")
    report = verified(answer(example.images, example.sizes), graph, example, FILE)
    if args.verify:
        report += f"; {rescored(answer, graph, config, batch, FILE)}"
    return [f"{line}: {report}"]


def model_of(config: Config, weights: Weights, batch: int, described: dict[str, Any]) -> Any:
    """The `onnx.ModelProto` of a network on the host."""
    graph = graph_of(config, Weights(folded(weights.params, weights.statistics), {}), "float32")
    shapes = (
        jax.ShapeDtypeStruct((batch, *config.data.size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((batch, 2), jnp.int32),
    )
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in described.items()
    }
    return convert(graph, shapes, INPUTS, OUTPUTS, metadata)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None

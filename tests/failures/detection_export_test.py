"""What users of detectors meet when they export: a graph with other answers than the network."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from rtdetr.graphs import check, stablehlo
from rtdetr.graphs.detection import graph_of
from rtdetr.graphs.to_onnx.convert import CALLS, REGISTRY
from tests.rtdetr.exported import CANVAS, config_of, run_export, weights_of
from training.errors import InputError


def equations(jaxpr):
    """All of a traced function, with those of the functions that it calls."""
    for equation in jaxpr.eqns:
        inner = [v for v in equation.params.values() if isinstance(v, (ClosedJaxpr, Jaxpr))]
        if equation.primitive.name in CALLS:
            for called in inner:
                yield from equations(getattr(called, "jaxpr", called))
        else:
            yield equation


@pytest.fixture(scope="module")
def traced():
    """The operations of a network that was trained in bfloat16, exported for ONNX."""
    config = config_of("letterbox")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="bfloat16"))
    images = jax.ShapeDtypeStruct((1, *CANVAS, 3), jnp.uint8)
    sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    graph = graph_of(config, weights_of(), "float32")
    return list(equations(jax.make_jaxpr(graph)(images, sizes).jaxpr))


def test_maps_are_sampled_by_operations_that_no_runtime_replaces(traced):
    """Field failure 6: GridSample, which runtimes fuse wrongly or run in half precision."""
    names = {equation.primitive.name for equation in traced}
    assert "gather" in names
    # None of which becomes a GridSample; `iota` is known beforehand.
    assert names <= REGISTRY.keys() | {"iota"}


def test_no_number_of_the_onnx_form_is_a_half_float(traced):
    """Field failure 6: logits and boxes collapse in fp16."""
    types = {v.aval.dtype.name for equation in traced for v in equation.outvars}
    assert {"float32", "int32", "bool"} == types


def test_a_file_that_answers_otherwise_is_refused_when_it_is_written(tmp_path, monkeypatch):
    """Field failure 6: the loss of AP was found weeks later, by its users."""

    def other(answers, graph, example, what):
        wanted = [np.array(x) for x in answers]
        wanted[2] = wanted[2] + 0.01 * example.sizes.max()
        return check.verified(answers, lambda *_: tuple(wanted), example, what)  # type: ignore

    monkeypatch.setattr(stablehlo, "verified", other)
    with pytest.raises(InputError, match=r"model\.stablehlo does not answer as the network does"):
        run_export(weights_of(), config_of(layers=1), tmp_path, "--format", "stablehlo")

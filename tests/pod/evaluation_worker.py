"""One host of an evaluation over batches; prints what it has as one line of JSON."""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from tests.training.over_batches_test import Everything
from tests.training.toy import ToySource
from training import distributed
from training.config import MeshConfig
from training.mesh import Layout, make_mesh
from training.over_batches import from_all_hosts, over_batches

LENGTH = 21


def main(axes: str) -> int:
    distributed.initialize()
    layout = Layout(make_mesh(MeshConfig(**json.loads(axes))))
    source = ToySource(LENGTH)

    def examine(index: int, local) -> float:
        # On one device of this host: the hosts look at different numbers of examples.
        return float(jax.jit(jnp.sum)(jnp.asarray(local["pair"][0])))

    with jax.set_mesh(layout.mesh):
        factor = layout.replicate(np.float32(2))
        swept = over_batches(Everything(), (factor,), source, 8, layout, examine=examine)
        gathered = from_all_hosts(swept.examined)
    print(
        "result",
        json.dumps(
            {
                "sums": jax.tree.map(lambda x: x.tolist(), swept.sums),
                "rows": jax.tree.map(lambda x: x.tolist(), swept.rows),
                "own": list(swept.examined),
                "gathered": gathered,
            }
        ),
        flush=True,
    )
    return 0


if __name__ == "__main__":
    code = distributed.exit_hook(lambda: main(sys.argv[1]))
    if code:
        distributed.leave(code)

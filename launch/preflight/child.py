"""The process that builds, lowers and compiles a run's update for a slice that is not attached.

`python -m launch.preflight.child REQUEST` prints one line of JSON; `compiler.py` starts it, in an
environment where libtpu looks for no devices and does not mind other processes. A config, task or
mesh that cannot work comes back as `error`, a sentence.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from launch.preflight import cache
from launch.preflight.figures import figures
from launch.preflight.memory import refusal
from launch.preflight.stand_in import StandIn
from launch.preflight.topology import topology
from training.errors import PodvisionError


def main() -> int:
    request = json.loads(sys.argv[1])
    try:
        answer = answered(request)
    except PodvisionError as error:
        answer = {"error": " ".join(str(error).split())}
    print(json.dumps(answer))
    return 0


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """What `compiler.Request` asks for.

    Returns:
      `state`: rows of `state_table.rows`; with libtpu also `device_kind`, `key`, `cached`,
      `variant`, `updates`, and the figures of the compiled program or `refused`.
    """
    import jax

    from launch.preflight.abstract import devices_of, largest_variant, make_program, tree_bytes
    from launch.preflight.state_table import state_rows
    from training.registry import load_stages

    slice_ = topology(request["topology"])
    config = dict(load_stages(request["config"], request["overrides"]))[request["stage"]]
    facts = request["stand_in"]
    stand_in = None if facts is None else StandIn(**facts)
    attached = not request["libtpu"]
    devices = jax.devices()[: slice_.devices] if attached else devices_of(slice_)
    program = make_program(config, devices, stand_in)
    variant = largest_variant(program)
    answer: dict[str, Any] = {
        "state": state_rows(program),
        "variant": None if variant is None else str(variant),
        "variants": len(getattr(program.task, "variants", ()) or ()),
        "batch_gib_per_device": tree_bytes(program.abstract_batches(1, variant))
        / 2**30
        / (program.layout.mesh.shape["data"] * program.layout.mesh.shape["fsdp"]),
        "flops_per_update": program.task_of(variant).describe().flops_per_example
        * config.batch_size,
    }
    if attached:
        return answer
    return answer | compiled_figures(program, variant, slice_, devices)


def compiled_figures(program: Any, variant: Any, slice_: Any, devices: Any) -> dict[str, Any]:
    """Figures of the compiled update, from the cache where it was compiled before."""
    import resource
    import time

    import jax

    # As many updates as a full call of the loop has.
    updates = program.config.updates_per_call
    lowered = program.lower(updates, variant)
    key = cache.program_key(lowered.as_text(), slice_.name, versions())
    found, damaged = cache.read(key)
    facts = {"device_kind": devices[0].device_kind, "key": key, "updates": updates}
    if damaged:
        print(damaged, file=sys.stderr)
        facts["cache_note"] = damaged
    if found is not None:
        return facts | found | {"cached": True}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        found = refusal(str(error))
        if found is None:
            raise
    else:
        found = figures(compiled, len(devices), updates)
    after = resource.getrusage(resource.RUSAGE_SELF)
    found["compile_wall_seconds"] = time.perf_counter() - started
    found["compile_seconds"] = sum(after[:2]) - sum(before[:2])
    note = cache.write(key, found)
    return facts | found | {"cached": False} | ({"cache_note": note} if note else {})


def versions() -> dict[str, str]:
    """Versions that decide what the compiler makes of a program."""
    from importlib.metadata import version

    return {package: version(package) for package in ("jax", "jaxlib", "libtpu")}


if __name__ == "__main__":
    sys.exit(main())

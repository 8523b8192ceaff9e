"""Hand-off between stages: parameters of a finished run become the start of the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from training.checkpoint.diff import select
from training.checkpoint.store import CheckpointReader, PathLike
from training.errors import CheckpointError
from training.paths import named_leaves


def initialize_from(
    workdir: PathLike,
    initial: Mapping[str, Any],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    step: int | str = "latest",
) -> dict[str, Any]:
    """`initial` with the selected arrays replaced by those of another run's checkpoint.

    Args:
      workdir: work folder of the earlier stage.
      initial: subtrees of a state under their field names, for instance `{"params": ...,
        "ema": ...}`, as initialized arrays; their shardings are kept.
      include: regexes of full paths to take (`params/encoder/.*`); empty takes all.
      exclude: regexes of full paths that keep their initial value.
      step: a number, or "latest".

    Raises:
      CheckpointError: an array does not fit or is not finite, a regex matches nothing, or there
        is no checkpoint.
    """
    reader = CheckpointReader(workdir)
    step = reader.resolve(step)
    restored = reader.restore_subtree(step, initial, include, exclude)
    leaves = named_leaves(restored)
    chosen = select(reader.describe(step), initial, include, exclude)
    _require_finite({path: leaves[path] for path in chosen}, str(reader.folder.step_path(step)))
    return restored


def _require_finite(arrays: Mapping[str, jax.Array], where: str) -> None:
    """Raises CheckpointError naming the floating-point arrays with a NaN or an infinity."""
    floating = {
        path: array for path, array in arrays.items() if jnp.issubdtype(array.dtype, jnp.floating)
    }
    finite = jax.device_get(jax.jit(_all_finite)(floating))
    broken = [path for path, ok in finite.items() if not ok]
    if broken:
        raise CheckpointError(
            f"checkpoint {where} holds values that are not finite in {', '.join(broken[:5])}; "
            f"start from an earlier checkpoint"
        )


def _all_finite(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: jnp.isfinite(array).all() for path, array in arrays.items()}

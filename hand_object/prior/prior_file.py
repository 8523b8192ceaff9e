"""Priors on disk: one safetensors file with the networks, the conditions and the form.

Arrays are `unet/...`, `autoencoder/...` and `condition/NAME`, where the name of the empty condition
is empty. They may be float16; they are float32 in memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hand_object.prior.grid import GridConfig
from hand_object.prior.model.unet import UnetConfig
from hand_object.prior.model.vqvae import VqvaeConfig
from hand_object.prior.places import prior_path
from hand_object.prior.trained_prior import PriorForm, TrainedPrior, check_grid
from training.errors import CheckpointError, ConfigError, PodvisionError
from training.paths import named_leaves
from training.typed import build, suggestion
from training.weight_files import read_safetensors, write_safetensors

_CONDITION = "condition/"


def save_prior(
    path: Path,
    params: Mapping[str, Any],
    conditions: Mapping[str, np.ndarray],
    form: PriorForm,
    note: str,
    dtype: str = "float32",
) -> None:
    """Writes a prior.

    Args:
      conditions: name of a category -> [K]; `""` is the empty one.
      note: where it comes from.
    """
    arrays = {name: np.asarray(leaf, dtype) for name, leaf in named_leaves(params).items()}
    arrays |= {f"{_CONDITION}{name}": np.asarray(v, dtype) for name, v in conditions.items()}
    write_safetensors(path, arrays, {"form": json.dumps(asdict(form)), "note": note})


def load_prior(
    source: str, category: str | None = None, wanted: GridConfig | None = None
) -> TrainedPrior:
    """A prior by the name of an embedded one, or by the path of a file or of an import's folder.

    Args:
      category: what is held; None tells the prior nothing.
      wanted: the grid that the run is made for; None takes the prior's.

    Raises:
      CheckpointError: the file holds no prior.
      ConfigError: no such file, an unknown category, or a prior of another shape or normalization.
    """
    path = prior_path(source)
    form, arrays = read_form(path), read_safetensors(path)
    if wanted is not None:
        check_grid(form.grid, wanted, source)
    conditions = {
        name.removeprefix(_CONDITION): jnp.asarray(value, jnp.float32)
        for name, value in arrays.items()
        if name.startswith(_CONDITION)
    }
    if "" not in conditions:
        raise CheckpointError(f"{path} lacks the empty condition; import the prior again")
    if category is not None and category not in conditions:
        known = sorted(name for name in conditions if name)
        raise ConfigError(
            f"the prior {source} knows no category {category!r}{suggestion(category, known)}; "
            "name one that it knows, or none"
        )
    networks = {n: value for n, value in arrays.items() if not n.startswith(_CONDITION)}
    chosen = conditions[category or ""]
    return TrainedPrior(_params(networks, form, path), chosen, conditions[""], form)


def read_form(path: Path) -> PriorForm:
    """The form of a prior, without its arrays.

    Raises:
      CheckpointError: its header describes no prior.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, path.stat().st_size)))
        values = json.loads(header["__metadata__"]["form"])
        autoencoder = values["autoencoder"]
        return PriorForm(
            build(GridConfig, values["grid"]),
            build(UnetConfig, values["unet"]),
            None if autoencoder is None else build(VqvaeConfig, autoencoder),
            str(values["hand"]),
        )
    except (struct.error, ValueError, LookupError, TypeError, PodvisionError) as error:
        raise CheckpointError(f"{path} does not say which prior it holds ({error})") from error


def _params(arrays: Mapping[str, np.ndarray], form: PriorForm, path: Path) -> dict[str, Any]:
    """The arrays as trees; every one that the form needs, and no other."""
    shapes = form.shapes()
    wanted = {name: leaf.shape for name, leaf in named_leaves(shapes).items()}
    found = {name: value.shape for name, value in arrays.items()}
    names = wanted.keys() | found.keys()
    wrong = sorted(name for name in names if wanted.get(name) != found.get(name))
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{path} does not hold the prior that it describes: {len(wrong)} arrays are missing, "
            f"left over or of another shape, such as {first} ({found.get(first)} instead of "
            f"{wanted.get(first)}); write or import it again"
        )
    leaves = [jnp.asarray(arrays[name], jnp.float32) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

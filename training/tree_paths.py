"""Names for the leaves of a pytree: dict keys, attribute names and indices joined with "/"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax


def path_name(path: tuple[Any, ...]) -> str:
    """`params/encoder/layer_0/kernel` for a key path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten_paths(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by name, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves}


def unflatten_paths(template: Any, leaves: Mapping[str, Any]) -> Any:
    """A tree like `template` with the leaves of these names; raises KeyError if one is absent."""
    structure = jax.tree.structure(template)
    return jax.tree.unflatten(structure, [leaves[name] for name in flatten_paths(template)])

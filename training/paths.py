"""Names of leaves: the path of a leaf in a tree of arrays, joined by "/"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from training.errors import ConfigError


def path_name(path: tuple[Any, ...]) -> str:
    """`params/encoder/block/kernel` from a key path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Leaf path -> leaf, in tree order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`function(path, leaf, ...)` on every leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(path_name(path), *leaves), tree, *rest
    )


def compile_pattern(pattern: str, key: str) -> re.Pattern[str]:
    """A regex on leaf paths that the user wrote under a config key.

    Raises:
      ConfigError: text that is no regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{key}: {pattern!r} is not a regular expression: {error}") from error


def rebuild(template: Any, leaves: Mapping[str, Any]) -> Any:
    """A tree like `template` with the leaves of these names; raises KeyError if one is absent."""
    return jax.tree.unflatten(
        jax.tree.structure(template), [leaves[name] for name in named_leaves(template)]
    )


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Dicts in dicts from leaf paths."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree

"""What differs between a checkpoint and a model, in a few lines and before anything is restored.

Vocabulary: a *leaf* is one array of a state, named by its path joined with "/"
(`params/encoder/layer_0/kernel`). *Saved* is the checkpoint, *model* the state that the program
wants. A *finding* is one leaf that cannot be restored as it is; `checkpoint_text` prints them in
groups: numbered layers become `layer_{0..3}`, a subtree that one side lacks becomes `head/**`, and
optimizer moments or averages that repeat the findings of their parameters are folded into one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from training.checkpoint.text import Finding, config_line, grouped_lines
from training.errors import CheckpointError, ConfigError
from training.paths import compile_pattern, named_leaves

# Keys of the config that decide what is learned from which data; a resume must not change them.
FROZEN_PREFIXES = (
    "system",
    "seed",
    "batch_size",
    "accumulation",
    "total",
    "model",
    "data",
    "ema",
    "optimizer.schedule",
    "optimizer.groups",
)


# Ordered (regex of a saved path, template of its new path).
RenameRules = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class LeafSpec:
    """Shape and dtype name of one array; a typed PRNG key is described by its uint32 words."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class SavedDescription:
    """What a checkpoint holds, read without loading any array.

    Attributes:
      path: folder of the checkpoint, for messages.
      step: its step.
      leaves: path of a leaf -> its shape and dtype.
      config: the resolved config that the run was started with, as JSON.
      task: `Task.metadata()` at the time of the save, as JSON.
      metrics: evaluation metrics given at the save; empty if none were.
    """

    path: str
    step: int
    leaves: Mapping[str, LeafSpec]
    config: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def renamed(self, rules: RenameRules) -> SavedDescription:
        """The same with leaves under the names that `saved_names` gives them."""
        return replace(self, leaves={n: self.leaves[o] for n, o in self.saved_names(rules).items()})

    def saved_names(self, rules: RenameRules) -> dict[str, str]:
        """New path -> path in the checkpoint, by the first rule that matches a whole path.

        Raises:
          CheckpointError: a rule that matches nothing, or two leaves that get one name.
          ConfigError: a rule that is no regular expression.
        """
        names: dict[str, str] = {}
        used: set[str] = set()
        for path in self.leaves:
            new = path
            for pattern, template in rules:
                found = compile_pattern(pattern, "checkpoint.init_rename").fullmatch(path)
                if found:
                    used.add(pattern)
                    new = found.expand(template)
                    break
            if new in names:
                raise CheckpointError(
                    f"checkpoint.init_rename gives {names[new]} and {path} of {self.path} the same "
                    f"name {new}; change the rules"
                )
            names[new] = path
        unused = [pattern for pattern, _ in rules if pattern not in used]
        if unused:
            raise CheckpointError(
                f"checkpoint.init_rename entry {unused[0]!r} matches no array of {self.path}; the "
                f"paths look like {', '.join(list(self.leaves)[:3])}"
            )
        return names


@dataclass(frozen=True)
class Diff:
    """The findings of a comparison and, for the reader, what changed in the config."""

    path: str
    findings: tuple[Finding, ...] = ()
    config_changes: tuple[tuple[str, Any, Any], ...] = ()

    @property
    def empty(self) -> bool:
        """True if everything that is wanted can be restored as it is."""
        return not self.findings

    def text(self) -> str:
        """The grouped findings, aligned, with the first differences of the config."""
        if self.empty:
            return f"checkpoint  {self.path}\nfits the model\n"
        lines = [f"checkpoint  {self.path}", "does not fit the model", ""]
        lines += [f"  {line}" for line in grouped_lines(self.findings)]
        if self.config_changes:
            lines += ["", config_line(self.config_changes)]
        return "\n".join(lines) + "\n"

    def require_empty(self, advice: str) -> None:
        """Raises CheckpointError with the advice and `text()` unless nothing was found."""
        if not self.empty:
            raise CheckpointError(
                f"the checkpoint does not fit the model; {advice}\n\n{self.text()}"
            )


def leaf_specs(tree: Any) -> dict[str, LeafSpec]:
    """Path -> shape and dtype for a tree of arrays or `jax.ShapeDtypeStruct`."""
    return {path: _spec(leaf) for path, leaf in named_leaves(tree).items()}


def _spec(leaf: Any) -> LeafSpec:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return LeafSpec(tuple(leaf.shape), str(leaf.dtype))


def compare(
    saved: SavedDescription,
    abstract_state: Any,
    config: Mapping[str, Any] | None = None,
    casts: Sequence[str] = (),
) -> Diff:
    """Strict comparison, for a resume: every leaf on both sides, same shape, same dtype.

    Args:
      saved: description of the checkpoint.
      abstract_state: tree of arrays or `jax.ShapeDtypeStruct`.
      config: current config as JSON, to report what changed; None reports nothing.
      casts: regexes of leaves whose dtype may differ (the restore then casts).

    Raises:
      CheckpointError: an entry of `casts` matches no leaf.
    """
    model = leaf_specs(abstract_state)
    return _diff(saved, saved.leaves, model, config, casts)


def select(
    saved: SavedDescription,
    abstract: Any,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[str]:
    """Paths that a subset restore is about: those of either side under the same top-level names.

    Args:
      saved: description of the checkpoint.
      abstract: dict of subtrees, for instance `{"params": ...}`; other subtrees are ignored.
      include: regexes of full paths (`params/encoder/.*`); empty takes all.
      exclude: regexes of full paths that are left out.

    Raises:
      CheckpointError: an entry of a list matches nothing, or nothing is left to take.
    """
    model = leaf_specs(abstract)
    roots = {path.split("/")[0] for path in model}
    paths = sorted({*model, *(path for path in saved.leaves if path.split("/")[0] in roots)})
    included = _matching("init_include", include, paths) if include else set(paths)
    chosen = sorted(included - _matching("init_exclude", exclude, paths))
    if not chosen:
        raise CheckpointError(
            f"checkpoint.init_include and init_exclude leave no array of {saved.path} to "
            f"take over; widen the first or narrow the second"
        )
    return chosen


def compare_subset(
    saved: SavedDescription,
    abstract: Any,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    casts: Sequence[str] = (),
) -> Diff:
    """Comparison of the selected leaves only, for `init_from` and evaluation; see `select`."""
    chosen = set(select(saved, abstract, include, exclude))
    saved_leaves = {path: spec for path, spec in saved.leaves.items() if path in chosen}
    model = {path: spec for path, spec in leaf_specs(abstract).items() if path in chosen}
    return _diff(saved, saved_leaves, model, config, casts)


def _matching(key: str, patterns: Sequence[str], paths: Sequence[str]) -> set[str]:
    """Paths that any pattern matches in full; every pattern must match at least one."""
    matched: set[str] = set()
    for pattern in patterns:
        try:
            hits = {path for path in paths if re.fullmatch(pattern, path)}
        except re.error as error:
            raise ConfigError(f"checkpoint.{key} entry {pattern!r} is no regex: {error}") from error
        if not hits:
            raise CheckpointError(
                f"checkpoint.{key} entry {pattern!r} matches no array; the paths look like "
                f"{', '.join(paths[:3])}"
            )
        matched |= hits
    return matched


def _diff(
    saved: SavedDescription,
    saved_leaves: Mapping[str, LeafSpec],
    model: Mapping[str, LeafSpec],
    config: Mapping[str, Any] | None,
    casts: Sequence[str],
) -> Diff:
    may_cast = _matching("casts", casts, sorted(model)) if casts else set()
    saved_prefixes, model_prefixes = _prefixes(saved_leaves), _prefixes(model)
    findings = []
    for path in [*model, *(path for path in saved_leaves if path not in model)]:
        ours, theirs = model.get(path), saved_leaves.get(path)
        if ours is None:
            subtree = _subtree(path, model_prefixes)
            findings.append(Finding("extra", path, theirs, None, subtree))
        elif theirs is None:
            subtree = _subtree(path, saved_prefixes)
            findings.append(Finding("missing", path, None, ours, subtree))
        elif ours.shape != theirs.shape:
            findings.append(Finding("shape", path, theirs, ours))
        elif ours.dtype != theirs.dtype and path not in may_cast:
            findings.append(Finding("dtype", path, theirs, ours))
    changes = () if config is None else tuple(config_changes(saved.config, config))
    return Diff(saved.path, tuple(findings), changes)


def _prefixes(paths: Iterable[str]) -> set[str]:
    """Every path and every container above it."""
    found = set()
    for path in paths:
        parts = path.split("/")
        found |= {"/".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return found


def _subtree(path: str, other_side: set[str]) -> str:
    """The shortest prefix of `path` that is not on the other side."""
    parts = path.split("/")
    prefixes = ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((prefix for prefix in prefixes if prefix not in other_side), path)


def flat_config(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested JSON config with its keys joined by dots; lists stay whole (tuples become lists)."""
    if isinstance(config, Mapping) and config:
        return {
            key: value
            for name, child in config.items()
            for key, value in flat_config(
                child, f"{prefix}.{name}" if prefix else str(name)
            ).items()
        }
    return {prefix: _as_json(config)} if prefix else {}


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(child) for key, child in value.items()}
    return [_as_json(child) for child in value] if isinstance(value, tuple | list) else value


def config_changes(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[tuple]:
    """`(dotted key, saved value, current value)` in the order of the current config.

    A key that one side lacks has the value None there.
    """
    old, new = flat_config(saved), flat_config(current)
    keys = [*new, *(key for key in old if key not in new)]
    return [(k, old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)]


def check_resume(
    saved_config: Mapping[str, Any],
    current_config: Mapping[str, Any],
    frozen: Sequence[str] = FROZEN_PREFIXES,
    allow: Sequence[str] = (),
) -> list[tuple]:
    """Refuses to resume a run whose model, data or schedule changed since its checkpoint.

    Args:
      saved_config: config stored in the checkpoint, as JSON.
      current_config: config of this command, as JSON.
      frozen: dotted prefixes of keys that must not change.
      allow: dotted prefixes that may change although they are frozen.

    Returns:
      The changes that are not frozen, as from `config_changes`, to be logged.

    Raises:
      ConfigError: it is another system's run, or frozen keys changed; all are listed.
    """
    ours, theirs = current_config.get("system"), saved_config.get("system")
    if ours != theirs:
        raise ConfigError(
            f"the work folder holds a run of {theirs}, not of {ours}; choose another --workdir"
        )
    changes = config_changes(saved_config, current_config)
    refused = [
        change for change in changes if _under(change[0], frozen) and not _under(change[0], allow)
    ]
    if refused:
        listed = ", ".join(f"{key} {old!r} -> {new!r}" for key, old, new in refused)
        raise ConfigError(
            f"the run cannot be resumed because its config changed in {listed}; restore these "
            f"values, or start in a new --workdir"
        )
    return [change for change in changes if not _under(change[0], frozen)]


def _under(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)

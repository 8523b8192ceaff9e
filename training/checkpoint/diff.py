"""What differs between a checkpoint and a model, in a few lines and before anything is restored.

Vocabulary: a *leaf* is one array of a state, named by its path joined with "/"
(`params/encoder/layer_0/kernel`). *Saved* is the checkpoint, *model* the state that the program
wants. A *finding* is one leaf that cannot be restored as it is; `training.checkpoint.text` prints
them in groups: numbered layers become `layer_{0..3}`, a subtree that one side lacks becomes
`head/**`, and optimizer moments or averages that repeat the findings of their parameters are folded
into one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from training.checkpoint.text import Finding, config_line, grouped_lines
from training.config import TrainConfig
from training.errors import CheckpointError, ConfigError
from training.paths import compile_pattern, named_leaves
from training.settings import resumable
from training.typed import plain, suggestion

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
      task: what `resume.saved_facts` gave at the save (`Task.metadata()` is in it), as JSON.
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
) -> Diff:
    """Strict comparison, for a resume: every leaf on both sides, same shape, same dtype.

    Args:
      saved: description of the checkpoint.
      abstract_state: tree of arrays or `jax.ShapeDtypeStruct`.
      config: current config as JSON, to report what changed; None reports nothing.
    """
    model = leaf_specs(abstract_state)
    return _diff(saved, saved.leaves, model, config)


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
) -> Diff:
    """Comparison of the selected leaves only, for `init_from`; see `select`."""
    chosen = set(select(saved, abstract, include, exclude))
    saved_leaves = {path: spec for path, spec in saved.leaves.items() if path in chosen}
    model = {path: spec for path, spec in leaf_specs(abstract).items() if path in chosen}
    return _diff(saved, saved_leaves, model, config)


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
) -> Diff:
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
        elif ours.dtype != theirs.dtype:
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
    # `get`: a key that is new and None, as on a run saved before it existed, is no change.
    return [(k, old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)]


def check_resume(
    saved_config: Mapping[str, Any], config: TrainConfig, allow: Sequence[str] = ()
) -> None:
    """Refuses to resume a run whose config changed in anything that decides what is learned.

    What may change is marked `resumable` in the fields of the config; all other keys need `allow`.

    Args:
      saved_config: config stored in the checkpoint, as JSON.
      config: that of this command.
      allow: dotted keys, or groups of them, that may change nevertheless. `data` also stands for
        the examples themselves, which are compared elsewhere.

    Raises:
      ConfigError: it is another system's run, an entry of `allow` is no key, or the config changed
        in what must not change; all such keys are listed.
    """
    theirs = saved_config.get("system")
    if config.system != theirs:
        raise ConfigError(
            f"the work folder holds a run of {theirs}, not of {config.system}; choose another "
            "--workdir"
        )
    current = plain(config)
    changes = config_changes(saved_config, current)
    _check_allowed(allow, [*flat_config(current), *(key for key, _, _ in changes)])
    refused = [
        change
        for change in changes
        if not resumable(type(config), change[0]) and not _under(change[0], allow)
    ]
    if refused:
        listed = ", ".join(f"config.{key} from {old!r} to {new!r}" for key, old, new in refused)
        keys = ",".join(key for key, _, _ in refused)
        them = "this value" if len(refused) == 1 else "these values"
        raise ConfigError(
            f"the run cannot be resumed with a change of {listed}; restore {them}, start in a new "
            f"--workdir, or go on with the change by --allow-config-change={keys}"
        )


def _check_allowed(allow: Sequence[str], keys: Sequence[str]) -> None:
    # Every group that a key is in may be named, too.
    groups = {key.rsplit(".", depth)[0] for key in keys for depth in range(key.count(".") + 1)}
    known = sorted({*keys, *groups, "data"})
    for entry in allow:
        if entry not in known:
            raise ConfigError(
                f"--allow-config-change={entry} names no key of the config"
                f"{suggestion(entry, known)}"
            )


def _under(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)

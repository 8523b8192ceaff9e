"""Checkpoints in `WORKDIR/checkpoints/<step>/{state,data}`; the only module that knows orbax.

`CheckpointReader` lists, describes and restores; it never changes the folder. `CheckpointStore`
also saves and applies the retention. All processes of a run must make the same calls in the same
order. A checkpoint counts only once it is complete: what a killed save leaves behind is never the
latest, and is cleared away when the next run opens the store.

Nothing is restored before `training.checkpoint.diff` has compared every shape and dtype, because
orbax names no array in its errors and casts dtypes silently.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from training import distributed, storage
from training.checkpoint.diff import SavedDescription, compare, compare_subset, leaf_specs, select
from training.checkpoint.folder import CheckpointFolder
from training.checkpoint.retention import Retention
from training.config import CheckpointConfig
from training.errors import CheckpointError, ConfigError, UnreadableCheckpoint
from training.paths import named_leaves, path_name, rebuild
from training.storage import PathLike

UNREADABLE = "checkpoint {path} cannot be read ({reason})"
UNWRITABLE = (
    "a checkpoint could not be written to {path} ({reason}); check free space and permissions, "
    "then run the same command again"
)

Json: TypeAlias = Mapping[str, Any]


def _context() -> ocp.Context:
    """Stores `data` as readable JSON instead of an array per number."""
    registry = ocp.handlers.local_registry()
    registry.add(ocp.handlers.JsonHandler, checkpointable_name="data")
    context = ocp.Context()
    context.checkpointables.registry = registry
    return context


class CheckpointReader:
    """Read-only view of the checkpoints of a work folder."""

    def __init__(self, workdir: PathLike, config: CheckpointConfig | None = None):
        """Args: workdir: the run's folder; config: needed for `best` only."""
        self.folder = CheckpointFolder(workdir)
        self.config = config
        # Step -> what was read of it. A file or more for each array is opened for that, and a
        # restore asks three times; a complete checkpoint does not change.
        self._known: dict[int, Any] = {}

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return self.folder.steps()

    def latest(self) -> int | None:
        """The newest step, or None without a checkpoint."""
        return self.folder.latest()

    def best(self) -> int | None:
        """The step with the best `checkpoint.best_metric`, or None if none was evaluated.

        Raises:
          ConfigError: the config names no metric.
        """
        if self.config is None or self.config.best_metric is None:
            raise ConfigError("config.checkpoint.best_metric is not set, so no checkpoint is best")
        metrics = {step: self.describe(step).metrics for step in self.steps()}
        return Retention(self.config).best(metrics)

    def resolve(self, which: int | str) -> int:
        """The step that `latest`, `best` or a number names; CheckpointError if there is none."""
        named = {"latest": self.latest, "best": self.best}
        text = str(which)
        if text not in named and not text.isdigit():
            raise CheckpointError(f"--step {which} is not a number, latest or best")
        return self.folder.require(named[text]() if text in named else int(text), which)

    def describe(self, step: int | str) -> SavedDescription:
        """Shapes, dtypes, config, task metadata and metrics of a checkpoint; loads no array."""
        step = self.resolve(step)
        metadata = self._metadata(step)
        custom = metadata.custom_metadata or {}
        return SavedDescription(
            path=str(self.folder.step_path(step)),
            step=step,
            leaves=leaf_specs(metadata.metadata),
            config=custom.get("config", {}),
            task=custom.get("task", {}),
            metrics=custom.get("metrics", {}),
        )

    def restore(
        self,
        step: int | str,
        abstract_state: Any,
        config: Json | None = None,
    ) -> tuple[Any, dict]:
        """The whole state, laid out as `abstract_state` says, and the data position.

        Args:
          step: a number, "latest" or "best".
          abstract_state: tree of arrays or `jax.ShapeDtypeStruct` with the wanted shardings; the
            mesh and the number of processes may differ from those of the save.
          config: current config as JSON, for the message if the state does not fit.

        Raises:
          CheckpointError: no such checkpoint, it does not fit, or it cannot be read.
        """
        saved = self.describe(step)
        diff = compare(saved, abstract_state, config)
        diff.require_empty("resume with the config that it was trained with")
        targets = {path: _target(path, leaf) for path, leaf in named_leaves(abstract_state).items()}
        arrays, data = self._load(saved.step, targets, with_data=True)
        return rebuild(abstract_state, arrays), data

    def restore_subtree(
        self,
        step: int | str,
        abstract: Mapping[str, Any],
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        config: Json | None = None,
        rename: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """Parts of the state, for instance `{"params": ..., "ema": ...}`.

        Args:
          step: a number, "latest" or "best".
          abstract: subtrees under the names of the state's fields, as for `restore`. Leaves that
            are not selected are returned as they were given.
          include: regexes of full paths to take (`params/encoder/.*`); empty takes all.
          exclude: regexes of full paths to leave.
          rename: (regex of a saved path, template of its path here), applied before all else.

        Raises:
          CheckpointError: a selected leaf does not fit, or a regex matches nothing.
        """
        stored = self.describe(step)
        names, saved = stored.saved_names(rename), stored.renamed(rename)
        diff = compare_subset(saved, abstract, include, exclude, config)
        diff.require_empty("name what to leave out in checkpoint.init_exclude")
        leaves = named_leaves(abstract)
        chosen = select(saved, abstract, include, exclude)
        targets = {names[path]: _target(path, leaves[path]) for path in chosen}
        arrays, _ = self._load(saved.step, targets, with_data=False)
        return rebuild(abstract, leaves | {path: arrays[names[path]] for path in chosen})

    def _metadata(self, step: int) -> Any:
        if step in self._known:
            return self._known[step]
        path = self.folder.step_path(step)
        with _explained(UNREADABLE, path, UnreadableCheckpoint):
            metadata = ocp.metadata(path, checkpointable_name="state")
            # Raised in here, where they become an UnreadableCheckpoint.
            if metadata.metadata is None:
                raise ValueError("damaged array metadata")
            if "config" not in (metadata.custom_metadata or {}):  # every save of ours has it
                raise ValueError("damaged metadata of the run")
        self._known[step] = metadata
        return metadata

    def _load(
        self, step: int, targets: Mapping[str, jax.ShapeDtypeStruct], with_data: bool
    ) -> tuple[dict[str, jax.Array], dict]:
        """Loads exactly the arrays in `targets`; the saved tree has placeholders elsewhere."""
        # Orbax wants the tree as it was saved; what is a placeholder in it is not read.
        wanted = jax.tree_util.tree_map_with_path(
            lambda path, _: targets.get(path_name(path), ocp.PLACEHOLDER),
            self._metadata(step).metadata,
        )
        path = self.folder.step_path(step)
        with _explained(UNREADABLE, path, UnreadableCheckpoint), _context():
            loaded = ocp.load_checkpointables(path, {"state": wanted})
            # Read here: the storage layer takes damaged JSON for another kind of checkpoint.
            data = json.loads(storage.read_text(path / "data" / "data.json")) if with_data else {}
        arrays = named_leaves(loaded["state"])
        return {name: arrays[name] for name in targets}, data


class CheckpointStore(CheckpointReader):
    """Saves in the background and keeps the latest, the best and one for every N updates."""

    def __init__(self, workdir: PathLike, config: CheckpointConfig, newest: int | None = None):
        """Opens the store for writing and clears away what a killed save left behind.

        Args:
          workdir: shared by all hosts.
          config: retention.
          newest: step that the run goes on from; later checkpoints, which could not be read, are
            set aside. None keeps all.

        Raises:
          CheckpointError: the folder cannot be written or is not shared by all hosts.
        """
        super().__init__(workdir, config)
        distributed.check_shared_folder(self.folder.path)
        if distributed.is_main():
            self.folder.clear_leftovers()
            for step in self.folder.steps():
                if newest is not None and step > newest:
                    self.folder.set_aside(step, "damaged")
        # No host may look for the latest while the main one still clears.
        distributed.barrier("checkpoint leftovers cleared")
        self._last_saved = self.latest()
        self._unchecked = False  # whether a save was begun and its end not yet looked at
        self._checkpointer = ocp.training.Checkpointer(
            self.folder.path,
            context=_context(),
            preservation_policy=Retention(config),
        )

    def save(
        self,
        step: int,
        state: Any,
        data: Json,
        *,
        config: Json | None = None,
        task: Json | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """Starts a save and returns as soon as the arrays have left the devices.

        The caller may donate the state at once. An earlier save that is still being written is
        waited for first. Call `wait` before reporting the step as safe.

        Args:
          step: names the checkpoint.
          state: pytree of arrays.
          data: JSON, position in the example stream.
          config: JSON, the resolved config.
          task: JSON, `resume.saved_facts`.
          metrics: evaluation at this step; decides which checkpoint is best.

        Returns: False if this step was saved before (nothing is written then).

        Raises:
          CheckpointError: an array is empty, or this or an earlier save could not be written.
        """
        if step == self._last_saved:
            return False
        _refuse_empty(state)
        # JSON has no NaN, and one must not be best.
        finite = {k: float(v) for k, v in (metrics or {}).items() if math.isfinite(v)}
        best = self.config.best_metric if self.config else None
        custom = {"config": config or {}, "task": task or {}, "metrics": finite}
        with _explained(UNWRITABLE, self.folder.path):
            self._checkpointer.save_checkpointables_async(
                step,
                # Copied by way of JSON: the save goes on in the background.
                {"state": state, "data": json.loads(json.dumps(data))},
                force=True,  # the plan has decided; orbax has a cadence of its own
                # What `Retention` is asked with; the others are in the metadata only.
                metrics={best: finite[best]} if best in finite else None,
                custom_metadata=json.loads(json.dumps(custom)),
            )
        self._last_saved, self._unchecked = step, True
        return True

    def poll(self) -> None:
        """Raises CheckpointError if the save in the background has failed; cheap, for every call.

        Without it a run would train on unsaved until its next save.
        """
        if self._unchecked and not self._checkpointer.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns once every save is complete; raises CheckpointError if one failed."""
        # First, so that a failure is raised once and not at each later `poll`.
        self._unchecked = False
        with _explained(UNWRITABLE, self.folder.path):
            self._checkpointer.wait()

    def close(self) -> None:
        """Waits, and ends the background threads. The store cannot be used afterwards."""
        self.wait()
        self._checkpointer.close()


def _target(path: str, leaf: Any) -> jax.ShapeDtypeStruct:
    """What to load and where to; without a sharding, the only process takes its first device."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        if jax.process_count() > 1:
            raise ValueError(f"{path}: a restore on several hosts needs a sharding for every leaf")
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _refuse_empty(state: Any) -> None:
    empty = [path for path, leaf in named_leaves(state).items() if 0 in leaf.shape]
    if empty:
        raise CheckpointError(
            f"{', '.join(empty)} has no elements and cannot be stored; give it at least one row"
        )


@contextmanager
def _explained(
    sentence: str, path: epath.Path, kind: type[CheckpointError] = CheckpointError
) -> Iterator[None]:
    """Turns an error of the storage into one sentence for the user.

    A timeout is let through: it means that another host has died, not that the storage is bad,
    and a supervisor must be able to tell a crash from a mistake of the user.
    """
    try:
        yield
    # Before OSError, of which it is a kind.
    except TimeoutError:
        raise
    except (OSError, ValueError, *storage.failures()) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise kind(sentence.format(path=path, reason=reason)) from error

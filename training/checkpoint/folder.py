"""The folder `WORKDIR/checkpoints`: which steps are there, complete or not, and what is cleared."""

from __future__ import annotations

import json
import logging

from etils import epath

from training import storage
from training.errors import CheckpointError
from training.storage import PathLike

FOLDER = "checkpoints"
METADATA, COMMITTED = "_CHECKPOINT_METADATA", "commit_success.txt"
# All of these exist in a complete checkpoint; the commit marker is written last.
COMPLETE = (
    METADATA,
    COMMITTED,
    "state/_METADATA",
    "state/manifest.ocdbt",
    "data/data.json",
)


class CheckpointFolder:
    """Read-only view of the steps of a run; `clear_leftovers` alone changes anything."""

    def __init__(self, workdir: PathLike):
        # Orbax takes absolute paths only.
        self.path = storage.absolute(workdir) / FOLDER

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(int(path.name) for path in self._step_folders() if _is_complete(path))

    def latest(self) -> int | None:
        """The newest step, or None without a checkpoint."""
        return max(self.steps(), default=None)

    def step_path(self, step: int) -> epath.Path:
        """The folder of one checkpoint."""
        return self.path / str(step)

    def require(self, step: int | None, which: int | str) -> int:
        """`step` if it is a complete checkpoint; `which` is what the user asked for.

        Raises:
          CheckpointError: it is not, with the steps that there are.
        """
        steps = self.steps()
        if step is None or step not in steps:
            have = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(
                f"{self.path} has no complete checkpoint {which} (there are: {have}); "
                f"choose another step or train first"
            )
        return step

    def clear_leftovers(self) -> None:
        """Removes unfinished saves and sets incomplete checkpoints aside; on one host only."""
        for path in storage.list_folder(self.path):
            # On a disk orbax writes under such a name, which it changes at the end.
            if ".orbax-checkpoint-tmp" in path.name or _is_unfinished(path):
                logging.info("removing the unfinished checkpoint %s", path)
                path.rmtree()
        for path in self._step_folders():
            if not _is_complete(path):
                self.set_aside(int(path.name), "incomplete")

    def set_aside(self, step: int, why: str) -> None:
        """Renames a step so that it counts no more and blocks no save.

        It is kept, because it may be a copy in progress or hold what somebody can still rescue.
        """
        path = self.step_path(step)
        aside = path.parent / f"{path.name}.{why}"
        if aside.exists():
            aside.rmtree()
        logging.warning("setting the %s checkpoint %s aside as %s", why, path, aside)
        path.rename(aside)

    def _step_folders(self) -> list[epath.Path]:
        return [path for path in storage.list_folder(self.path) if path.name.isdigit()]


def _is_unfinished(path: epath.Path) -> bool:
    """Whether a step in a bucket is a save that was killed.

    On a disk such a save has another name. In a bucket, where nothing is renamed, it has its final
    name from the start, no commit marker, and metadata that lack the time of the commit; a copy in
    progress has metadata that name it.
    """
    if not storage.is_bucket(path) or (path / COMMITTED).exists():
        return False
    try:
        facts = json.loads(storage.read_text(path / METADATA))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return isinstance(facts, dict) and facts.get("commit_timestamp_nsecs", 0) is None


def _is_complete(path: epath.Path) -> bool:
    return all((path / name).exists() for name in COMPLETE)

"""A trace of a few updates on demand, while a run goes on.

Whoever wants one lays a file `PROFILE` into the work folder (`podvision profile` does it), with the
number of updates in it. The main process finds it between two calls, traces so many updates after
those that have been compiled, and leaves `profile/<step>/`, which xprof and Perfetto open.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
from etils import epath

from training import storage
from training.errors import InputError
from training.storage import PathLike

REQUEST, FOLDER = "PROFILE", "profile"
UPDATES, MOST_UPDATES = 10, 1000  # the traces of more would be gigabytes
LOOK_SECONDS = 5.0  # between two looks: in a bucket each is a request


def ask(workdir: PathLike, updates: int) -> epath.Path:
    """Asks the run that trains in a work folder for a trace; returns the file of the request.

    Raises:
      InputError: there is no run, or it cannot be asked for so many updates.
    """
    folder = storage.as_path(workdir)
    if not 1 <= updates <= MOST_UPDATES:
        raise InputError(f"--updates {updates} must be from 1 to {MOST_UPDATES:,}")
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is not the work folder of a run: it has no config.json")
    storage.replace_text(folder / REQUEST, f"{updates}\n")
    return folder / REQUEST


class Profiler:
    """Starts and ends traces between the calls of the loop; a no-op on other processes."""

    def __init__(
        self,
        workdir: PathLike,
        main: bool,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        """`say` receives sentences for the user."""
        self._folder = storage.as_path(workdir)
        self._main, self._say, self._clock = main, say, clock
        self._looked_at = -LOOK_SECONDS
        # Of the trace that runs: its first step, the step after which it ends, its place.
        self._first, self._until = 0, 0
        self._place: tempfile.TemporaryDirectory[str] | None = None

    def between(self, step: int, settle: Callable[[], object]) -> None:
        """After `step` updates: ends the trace that is due, or starts one that was asked for.

        Args:
          settle: waits until no update is under way on the devices.
        """
        if not self._main:
            return
        if self._place is not None:
            if step >= self._until:
                settle()
                self._finish(step)
            return
        updates = self._asked()
        if updates:
            settle()
            self._begin(step, updates)

    def close(self, step: int) -> None:
        """Ends a trace that runs: the run ended, after `step` updates, before it did."""
        if self._place is not None:
            self._finish(step)

    def _asked(self) -> int:
        """Updates that are asked for now; the request is taken away."""
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return 0
        self._looked_at = now
        request = self._folder / REQUEST
        try:
            if not request.exists():
                return 0
            text = storage.read_text(request).strip()
            request.unlink()
        # In a folder that was made read-only, or a bucket that is away: training goes on.
        except (OSError, *storage.failures()) as error:
            self._say(f"{request} could not be read and taken away ({error}); nothing is traced")
            return 0
        count = int(text) if text.isascii() and text.isdigit() else UPDATES if not text else 0
        if not 1 <= count <= MOST_UPDATES:
            self._say(
                f"{request} holds {text[:40]!r}; write a number of updates from 1 to "
                f"{MOST_UPDATES:,}, or nothing for {UPDATES}"
            )
            return 0
        return count

    def _begin(self, step: int, updates: int) -> None:
        place = tempfile.TemporaryDirectory(prefix="podvision-profile-")
        options = jax.profiler.ProfileOptions()
        # Calls of Python would be most of a trace, and slow down what is measured.
        options.python_tracer_level = 0
        try:
            jax.profiler.start_trace(place.name, profiler_options=options)
        except RuntimeError as error:  # another trace runs, such as of a profiler server
            place.cleanup()
            self._say(f"no trace could be started at step {step}: {error}")
            return
        self._place, self._first, self._until = place, step, step + updates

    def _finish(self, step: int) -> None:
        assert self._place is not None
        jax.profiler.stop_trace()
        target = self._folder / FOLDER / str(self._first)
        made = [file for file in sorted(Path(self._place.name).rglob("*")) if file.is_file()]
        try:
            for file in made:
                path = target / file.relative_to(self._place.name).as_posix()
                storage.make_folder(path.parent)
                storage.replace_bytes(path, file.read_bytes())
        except (OSError, *storage.failures()) as error:
            self._say(f"the trace could not be written to {target} ({error})")
        else:
            self._say(
                f"traced {step - self._first} updates after step {self._first}: {target} "
                "(xprof --logdir, or the .json.gz in ui.perfetto.dev)"
            )
        self._place.cleanup()
        self._place = None

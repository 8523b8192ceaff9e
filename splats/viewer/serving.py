"""The loop behind `podvision view`: reads checkpoints, answers the browsers, in one thread."""

from __future__ import annotations

import contextlib
import time

from splats.viewer.follow import newest_step, read_shown
from splats.viewer.page import Page
from training import stop
from training.errors import CheckpointError
from training.plan import make_plan
from training.record.run_folder import read_config
from training.registry import make_task
from training.storage import PathLike

POLL_SECONDS = 2.0


def serve_run(workdir: PathLike, which: str, follow: bool, host: str, port: int) -> None:
    """Serves the page until Ctrl-C or SIGTERM.

    Args:
      which: step, latest or best.
      follow: show new checkpoints as they appear.

    Raises:
      InputError: no work folder.
      CheckpointError: no such checkpoint (where it follows, it waits for the first one).
    """
    config = read_config(workdir)
    waiting = follow and newest_step(workdir) is None
    shown = None if waiting else read_shown(workdir, which)
    task = shown.task if shown is not None else make_task(config)
    facts = task.facts  # type: ignore[attr-defined]
    total = make_plan(task, len(facts.train)).total
    page = Page(host, port, facts, lambda: task.scene, total, task.background)  # type: ignore[attr-defined]
    print(f"{page.address} shows {workdir}; Ctrl-C ends it", flush=True)
    try:
        if shown is not None:
            page.show(shown)
        serve(page, workdir, follow)
        print("ended", flush=True)
    finally:
        page.close()


def serve(page: Page, workdir: PathLike, follow: bool) -> None:
    """Answers browsers and, on request, takes over new checkpoints, until asked to stop."""
    looked = 0.0
    while not stop.requested():
        if follow and time.monotonic() - looked >= POLL_SECONDS:
            take_newest(page, workdir)
            looked = time.monotonic()
        page.update()
        with contextlib.suppress(stop.StopRequested), stop.interruptible():
            page.wake.wait(POLL_SECONDS)
        page.wake.clear()


def take_newest(page: Page, workdir: PathLike) -> None:
    """Shows the newest checkpoint, unless it is the one on show."""
    newest = newest_step(workdir)
    if newest is None:
        page.say("no checkpoint yet; waiting for the first one")
        return
    if page.shown is not None and newest == page.shown.step:
        return
    task = page.shown.task if page.shown is not None else None
    try:
        shown = read_shown(workdir, str(newest), task)
    except CheckpointError as error:
        # The run may remove a checkpoint while it is read; the next look finds a newer one.
        page.say(f"step {newest} could not be read: {error}")
        return
    page.show(shown)
    print(f"step {newest}: {len(shown.cloud):,} Gaussians", flush=True)

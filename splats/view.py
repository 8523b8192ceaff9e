"""The loop behind `podvision view`: reads checkpoints, answers the browsers, in one thread."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from splats.viewer.follow import newest_step, read_shown
from splats.viewer.page import Page, require_viser
from training import distributed
from training.errors import CheckpointError, ConfigError
from training.plan import make_plan
from training.record.run_folder import read_config
from training.registry import make_task

POLL_SECONDS = 2.0
LARGEST_PORT = 65535


def check_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for arguments that cannot work, or without viser."""
    if not 0 < args.port <= LARGEST_PORT:
        raise ConfigError(f"--port {args.port} is no port; give one from 1 to {LARGEST_PORT}")
    if args.follow and args.step != "latest":
        raise ConfigError(f"--follow shows the newest checkpoint; leave --step {args.step} out")
    require_viser()


def view(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C or SIGTERM.

    Raises:
      InputError: no work folder.
      CheckpointError: no such checkpoint (with --follow: it waits for the first one).
    """
    config = read_config(args.workdir)
    waiting = args.follow and newest_step(args.workdir) is None
    shown = None if waiting else read_shown(args.workdir, args.step)
    task = shown.task if shown is not None else make_task(config)
    total = make_plan(task, None).total
    page = Page(args.host, args.port, task.scene, total)  # type: ignore[attr-defined]
    print(f"{page.address} shows {args.workdir}; Ctrl-C ends it", flush=True)
    try:
        if shown is not None:
            page.show(shown)
        serve(page, args.workdir, args.follow)
    except KeyboardInterrupt:
        print("ended", flush=True)
    finally:
        page.close()


def serve(page: Page, workdir: Path, follow: bool) -> None:
    """Answers browsers and, on request, takes over new checkpoints, until SIGTERM."""
    looked = 0.0
    while not distributed.reached_preemption(0):
        if follow and time.monotonic() - looked >= POLL_SECONDS:
            take_newest(page, workdir)
            looked = time.monotonic()
        page.update()
        page.wake.wait(POLL_SECONDS)
        page.wake.clear()


def take_newest(page: Page, workdir: Path) -> None:
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

"""Start of every command that computes: libraries' messages, hosts, compilation cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def run_program(main: Callable[[], int], debug: bool) -> int:
    """Joins the other hosts, runs `main`, and turns its failure into an exit code."""
    # Before jax is imported: its native code reads this only once.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if debug else "1")
    from training.record import library_log

    with library_log.captured(debug):
        from training import distributed  # imports jax, which may have something to say

        def started() -> int:
            distributed.initialize()
            prepare_jax()
            return main()

        return distributed.exit_hook(started, debug=debug)


def prepare_jax() -> None:
    """Keeps compiled programs of accelerators on disk."""
    import jax

    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if jax.default_backend() != "cpu" and not chosen:
        folder = Path.home() / ".cache" / "podvision" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))

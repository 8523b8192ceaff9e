"""Start of every command that computes: libraries' messages, hosts, compilation cache."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
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
    """Keeps compiled programs on disk, so that the next start of a command need not compile them.

    One file a program in `~/.cache/podvision/compiled` (or `compiled` in PODVISION_CACHE), which
    may be deleted at any time. JAX_COMPILATION_CACHE_DIR chooses another folder, and
    JAX_ENABLE_COMPILATION_CACHE=false none.
    """
    import jax

    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    on_cpu = jax.default_backend() == "cpu"
    # Processes that share CPUs as if they were hosts are for tests: not worth a common folder.
    if chosen or (on_cpu and jax.process_count() > 1):
        return
    from etils import epath

    from training import storage
    from training.local_copy import CACHE

    folder = epath.Path(os.environ.get(CACHE, "~/.cache/podvision")).expanduser() / "compiled"
    if on_cpu:
        folder = folder / f"cpu-{instruction_set()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, *storage.failures()) as error:
        print(
            f"note: compiled programs cannot be kept in {folder} "
            f"({getattr(error, 'strerror', None) or error}), so every start compiles them anew",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Small programs too: each takes longer to compile than to read.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def instruction_set(cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """Digest of what this CPU can execute: JAX does not tell CPUs apart, and homes are shared."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    # Where they are not told, as outside of Linux, every machine keeps its own.
    facts = facts or [platform.node()]
    text = "\n".join([platform.machine(), *facts])
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

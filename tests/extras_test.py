"""Every extra of setup.cfg can be installed with the pinned versions."""

from __future__ import annotations

import configparser
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

UNREACHABLE = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ProxyError")


def extras() -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    return sorted(parser["options.extras_require"])


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pins are those of Python 3.11")
def test_all_extras_resolve_together_with_the_pinned_versions():
    """A choice of versions for all of them holds one for each alone. Nothing is installed."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    wanted = f".[{','.join(extras())}]"
    result = subprocess.run(
        [*command, "-c", "constraints.txt", wanted],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if any(word in result.stderr for word in UNREACHABLE):
        pytest.skip("no package index can be reached")
    assert result.returncode == 0, result.stderr[-3000:]

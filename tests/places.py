"""Fixtures: places where a run may lie: a folder on a disk, and one in an emulated bucket."""

from __future__ import annotations

import itertools

import pytest

from tests import emulator
from training import storage

_numbers = itertools.count()


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """The storage emulator. One for the session: clients read its address once in a process."""
    if not emulator.is_installed():
        pytest.skip(emulator.MISSING)
    with (
        pytest.MonkeyPatch.context() as patch,
        emulator.Emulator(tmp_path_factory.mktemp("storage")) as running,
    ):
        for name, value in running.environment.items():
            patch.setenv(name, value)
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        yield running


@pytest.fixture
def bucket(service):
    """A fresh folder in a bucket."""
    return storage.as_path(f"gs://{service.bucket}/test-{next(_numbers)}")


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """A folder that does not exist yet."""
    if request.param == "disk":
        return storage.as_path(tmp_path / "run")
    return request.getfixturevalue("bucket")

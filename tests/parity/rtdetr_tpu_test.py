"""The pod recipe's real update of RT-DETR R50, compiled by libtpu for 16 chips that are not there.

The whole update at full size: seven CPU minutes on a quiet machine, a quarter of an hour and more
beside other work. Therefore not part of `make parity`; in the environment of the `tpu` extra:
`PODVISION_LONG_COMPILATIONS=1 python -m pytest -m tpu tests/parity/rtdetr_tpu_test.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LONG = "PODVISION_LONG_COMPILATIONS"
pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(LONG not in os.environ, reason=f"minutes of compiling; set {LONG}=1"),
]
pytest.importorskip("libtpu", reason="needs libtpu: pip install -e '.[tpu]'")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def update():
    """What `benchmarks/rtdetr_compile.py` reads from the compiled program: 8 images a chip."""
    script = ROOT / "benchmarks" / "rtdetr_compile.py"
    done = subprocess.run(
        [sys.executable, str(script), "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ,
    )
    figures = json.loads(done.stdout)
    print(figures)
    return figures


def test_it_fits_a_chip_with_room_for_larger_canvases(update):
    """Of 30.75 GiB; 7.4 when it was written."""
    assert update["chip_gib"] <= 12


def test_only_sums_travel_between_chips(update):
    """Gradients, norms of the global batch and metrics: no image, activation or match."""
    assert set(update["collectives"]) == {"all-reduce"}

"""Worker processes: order is kept, and a conversion that takes its process down costs one input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from jepa3d.config import PrepareSettings
from jepa3d.data.convert import Task
from jepa3d.data.inventory import InputItem
from jepa3d.data.workers import run_all
from tests.jepa3d.data.oct_files import make_dataset, save


class Bomb(InputItem):
    """An input that ends the process which receives it."""

    def __reduce__(self):
        return os._exit, (3,)


def test_a_crash_is_charged_to_its_own_input(tmp_path):
    settings = PrepareSettings(shape=(8, 32, 32), workers=2)
    names = [f"{n}.dcm" for n in range(2)]
    ramp = np.broadcast_to(np.arange(250, dtype=np.uint8)[:, None], (6, 250, 80)).copy()
    for name in names:
        save(make_dataset(ramp), tmp_path, name)
    items = [InputItem(name, "p") for name in names]
    items.insert(1, Bomb("bomb.dcm", "p"))
    tasks = [Task(Path(tmp_path), item, "train", settings) for item in items]
    rows = [outcome.rows[0] for outcome in run_all(tasks, 2)]
    assert [row["path"] for row in rows] == [item.path for item in items]
    assert rows[1]["reason"] == "decoder_crashed"
    assert [row["status"] for row in rows if row["path"] != "bomb.dcm"] == ["ok"] * 2


def test_a_hung_conversion_is_ended():
    code = "from jepa3d.data.convert import end_when_hung\nend_when_hung(1)\nwhile True: pass"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -14

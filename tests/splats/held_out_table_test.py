"""Every held-out view is told with its scores, the worst first, and the worst are shown."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from splats import held_out_table
from splats.data.views import ViewSource
from splats.held_out_table import WIDTH, small, small_name, worst_first
from tests.splats.scenes import make_program, small_scene, small_task


def test_the_worst_comes_first_and_what_is_no_number_before_it():
    scores = [{"psnr": value} for value in (20.0, 12.0, float("nan"), 30.0, 12.0)]
    assert worst_first(scores) == [2, 1, 4, 0, 3]


def test_small_pictures_keep_their_shape():
    assert small(np.zeros((400, 3 * WIDTH, 3), np.uint8)).shape == (133, WIDTH, 3)
    narrow = np.random.default_rng(0).integers(0, 256, (30, 90, 3), np.uint8)
    np.testing.assert_array_equal(small(narrow), narrow)


@pytest.mark.usefixtures("quick_compilation")
def test_an_evaluation_tells_all_views_and_shows_the_worst(monkeypatch):
    monkeypatch.setattr(held_out_table, "PICTURED", 2)
    scene, task = small_scene(), small_task()
    views = scene.train[:4]
    program = make_program(task)
    with jax.set_mesh(program.layout.mesh):
        state = program.initial_state()
        result = task.evaluate(state, ViewSource(scene, views), program.layout)
    table = result.tables["held_out"]
    names = [row[0] for row in table.rows]
    assert sorted(names) == sorted(scene.names[view] for view in views)
    psnr = [row[table.columns.index("psnr")] for row in table.rows]
    assert psnr == sorted(psnr) and len(set(psnr)) == 4
    assert result.metrics["psnr"] == pytest.approx(np.mean(psnr))
    worst = [small_name(scene, scene.names.index(name)) for name in names[:2]]
    assert table.pictures == (*worst, "", "")
    shown = {name for name in result.images if name.startswith("held_out_")}
    assert shown == set(worst)

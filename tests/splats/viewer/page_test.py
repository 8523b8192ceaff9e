"""The page of `podvision view`, with viser's server and browsers that are stood in for."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import numpy as np
import pytest

from splats.export import trained_cloud
from splats.viewer import geometry
from splats.viewer.follow import Shown
from splats.viewer.page import BLACK, BROWSER, EXACT, NOTHING, Page
from splats.viewer.serving import serve
from tests.splats.scenes import POINTS, make_program, small_scene, small_task, view_renderer
from training import stop
from training.errors import ConfigError, InputError

pytest.importorskip("viser", reason="viser is not installed (extra viewer)")
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def shown() -> Shown:
    task = small_task()
    state = make_program(task).initial_state()
    return Shown(task, state, 7, 600, trained_cloud(task, state, normalized=True).cloud, {})


@pytest.fixture
def page(shown):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    opened = Page("127.0.0.1", port, shown.task.facts, lambda: shown.task.scene, 600)
    opened.show(shown)
    yield opened
    opened.close()


@pytest.fixture
def browser(page, monkeypatch):
    """A browser at the place of view 5, 48 by 32; what it is sent is kept in `pictures`."""
    scene = page.facts
    wxyz, position = geometry.pose_for_browser(scene.world_to_camera[5])
    angle = geometry.view_angle(scene.intrinsics[5], 32)
    camera = SimpleNamespace(wxyz=wxyz, position=position, fov=angle, aspect=48 / 32)
    pictures = []
    window = SimpleNamespace(set_background_image=pictures.append)
    client = SimpleNamespace(client_id=3, camera=camera, scene=window, pictures=pictures)
    monkeypatch.setattr(page.server, "get_clients", lambda: {3: client})
    return client


def test_gaussians_go_to_the_browser_as_converted(page, shown):
    page.update()
    drawn = geometry.drawn_cloud(shown.cloud)
    buffer = page.gaussians.buffer
    centers = buffer[:, :3].copy().view(np.float32) / drawn.magnification
    np.testing.assert_allclose(centers, shown.cloud.means, rtol=1e-5)
    assert page.gaussians.scale == pytest.approx(1 / drawn.magnification)
    rgba = buffer[:, 7:].copy().view(np.uint8)
    np.testing.assert_allclose(rgba[:, :3], 255 * drawn.colors, atol=1)
    assert "step 7** of 600" in page.text.content and f"{POINTS} Gaussians" in page.text.content


def test_sliders_draw_anew_and_nothing_else_does(page):
    page.update()
    first = page.gaussians
    page.update()
    assert page.gaussians is first
    page.faintest.value = 0.9
    page.update()
    assert page.gaussians is not first and len(page.gaussians.buffer) == 0


def test_an_exact_picture_is_sent_where_a_browser_moved_and_taken_back(page, browser, shown):
    page.update()
    page.height.value = "180"
    page.picture.value = EXACT
    page._all_changed()
    page.update()
    (sent,) = browser.pictures
    assert sent.shape == (180, 272, 3) and sent.dtype == np.uint8
    # Shrunk, it is the rendering of evaluation from that place.
    expected = 255 * np.clip(view_renderer(shown.task, shown.state)(5), 0, 1)
    blocks = [np.stack([a.mean() for a in np.array_split(sent.mean(2), 4, axis=0)])]
    blocks += [np.stack([a.mean() for a in np.array_split(expected.mean(2), 4, axis=0)])]
    assert np.abs(blocks[0] - blocks[1]).max() < 12
    assert not page.gaussians.visible
    page.update()
    assert len(browser.pictures) == 1  # it has not moved
    page._changed(3)
    page.update()
    assert len(browser.pictures) == 2
    page.picture.value = NOTHING
    page.update()
    assert browser.pictures[-1] is BLACK and not page.gaussians.visible
    page.picture.value = BROWSER
    page.update()
    assert page.gaussians.visible and len(browser.pictures) == 3


def test_cameras_of_both_kinds_stand_where_the_photographs_were_taken(page):
    scene = page.scene
    assert set(page.frustums) == set(scene.train.tolist()) | set(scene.test.tolist())
    for view, frustum in page.frustums.items():
        pose = geometry.pose_of_browser(frustum.wxyz, frustum.position)
        np.testing.assert_allclose(pose, scene.world_to_camera[view], atol=1e-6)
        assert frustum.visible == (view in scene.test)
        assert frustum.aspect == pytest.approx(48 / 32)
    page.shows["training"].value = True
    page._show_frustums("training")
    assert all(frustum.visible for frustum in page.frustums.values())


def test_a_click_on_a_camera_shows_its_photograph_and_goes_there(page, browser):
    moved = SimpleNamespace()
    browser.camera = moved
    browser.atomic = lambda: pytest.MonkeyPatch.context()  # any context manager
    view = int(page.facts.train[2])
    page.open_view(view, browser)
    assert page.photograph.visible and page.facts.names[view] in page.photograph.label
    assert "(training)" in page.photograph.label
    np.testing.assert_array_equal(page.photograph.image, page.open_scene().view(view))
    pose = page.facts.world_to_camera[view].astype(np.float64)
    seen = pose[:3, :3] @ moved.look_at + pose[:3, 3]
    np.testing.assert_allclose(seen[:2], 0, atol=1e-6)
    assert seen[2] > 0
    np.testing.assert_allclose(pose[:3, :3] @ moved.position + pose[:3, 3], 0, atol=1e-6)
    np.testing.assert_allclose(pose[:3, :3] @ moved.up_direction, [0, -1, 0], atol=1e-6)


def test_a_click_on_a_camera_whose_photograph_is_gone_says_so_and_still_goes_there(
    page, browser, monkeypatch
):
    def gone():
        raise InputError("the photographs of this run are gone")

    monkeypatch.setattr(page, "open_scene", gone)
    browser.atomic = lambda: pytest.MonkeyPatch.context()
    browser.camera = SimpleNamespace()
    page.open_view(int(page.facts.test[0]), browser)
    assert page.photograph.label.endswith("(held out): the photographs of this run are gone")
    assert browser.camera.fov > 0


def test_the_loop_ends_on_request(page, monkeypatch, tmp_path):
    answers = iter([False, True])
    monkeypatch.setattr(stop, "requested", lambda: next(answers))
    page.wake.set()
    serve(page, tmp_path, follow=True)
    assert "waiting" in page.text.content


def test_an_address_that_cannot_be_served_is_one_sentence(shown):
    with pytest.raises(ConfigError, match=r"--host 192\.0\.2\.1 --port 8099 cannot be served"):
        Page("192.0.2.1", 8099, shown.task.facts, small_scene, None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port} cannot be served .*in use"):
            Page("127.0.0.1", port, shown.task.facts, small_scene, None)

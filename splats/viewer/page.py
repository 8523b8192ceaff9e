"""The page in the browser, by viser: the scene, the cameras of the photographs, the controls.

viser calls back in threads of its own. Callbacks only note what is wanted and wake the loop of
`splats.viewer.serving`; everything that computes happens there, in one thread.
"""

from __future__ import annotations

import importlib
import socket
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from splats.data.background import BLACK, Color
from splats.data.scene import Scene
from splats.data.scene_facts import SceneFacts
from splats.evaluation import spread_over
from splats.viewer import geometry
from splats.viewer.follow import Renderings, Shown, status
from training.errors import ConfigError, PodvisionError

BROWSER, EXACT, NOTHING = "Gaussians (in the browser)", "exact rendering", "cameras only"
HEIGHTS = ("180", "360", "540", "720", "1080")
MOST_FRUSTUMS = 400
PHOTOGRAPH_PIXELS = 640  # longer side in the panel
NO_PICTURE = np.zeros((2, 2, 3), np.uint8)
TRAINING_COLOR, HELD_OUT_COLOR = (60, 110, 200), (230, 130, 30)


def require_viser() -> ModuleType:
    """The package viser.

    Raises:
      ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("viser")
    except ImportError as error:
        raise ConfigError(
            "podvision view needs the package viser; pip install 'podvision[viewer]'"
        ) from error


def check_address(host: str, port: int) -> None:
    """Raises ConfigError where nothing can be served; viser would wait for ever."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port} cannot be served ({error.strerror or error}); choose "
            "another port, and 127.0.0.1 or 0.0.0.0 as host"
        ) from error


class Page:
    """One server with its controls; `update` brings every browser up to date."""

    def __init__(
        self,
        host: str,
        port: int,
        facts: SceneFacts,
        open_scene: Callable[[], Scene],
        total: int | None,
        background: Color = BLACK,
    ):
        """Starts the server.

        Args:
          facts: the cameras that are shown.
          open_scene: reads the photographs; called when the first of them is asked for.
          total: updates of the whole run, where known.
          background: that the Gaussians were trained on: on another every faint one would show.

        Raises:
          ConfigError: viser is not installed, or the address cannot be served.
        """
        viser = require_viser()
        check_address(host, port)
        self.facts, self.open_scene, self.total = facts, open_scene, total
        self.reading = threading.Lock()  # browsers click in threads of their own
        self.wake = threading.Event()
        self.renderings = Renderings()
        self.moved: set[int] = set()  # browsers whose exact picture is out of date
        self.shown: Shown | None = None
        self._drawn: tuple[int, float, float] | None = None  # step, size and faintest, in browsers
        self._background: set[int] = set()  # browsers that show an exact picture
        self.server = viser.ViserServer(host=host, port=port, verbose=False)
        # A shared page would go through a server on the internet.
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        self.background = background
        behind = np.rint(255.0 * np.asarray(background)).astype(np.uint8)
        self.plain = np.tile(behind, (2, 2, 1))
        self.server.scene.set_background_image(self.plain)
        self.up = geometry.up_direction(facts.world_to_camera)
        self.server.scene.set_up_direction(tuple(self.up.tolist()))
        self._start_at(int(facts.test[0]))
        self._add_controls()
        self.frustums = {**self._frustums("training"), **self._frustums("held out")}
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(lambda client: self.moved.discard(client.client_id))

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{self.server.get_host()}:{self.server.get_port()}"

    def _start_at(self, view: int) -> None:
        """Every new browser starts as the camera of a photograph."""
        _, position, target, angle = self._camera(view)
        start = self.server.initial_camera
        start.up, start.position, start.look_at, start.fov = self.up, position, target, angle

    def _camera(self, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Orientation wxyz, place, point looked at and vertical angle of a photograph's camera."""
        pose = self.facts.world_to_camera[view]
        wxyz, position = geometry.pose_for_browser(pose)
        target = geometry.look_at_point(pose, np.zeros(3))
        _, height = self.facts.sizes[view].tolist()
        return wxyz, position, target, geometry.view_angle(self.facts.intrinsics[view], height)

    def _add_controls(self) -> None:
        gui = self.server.gui
        self.text = gui.add_markdown("reading the checkpoint")
        self.picture = gui.add_dropdown("show", (BROWSER, EXACT, NOTHING))
        self.height = gui.add_dropdown("exact: pixels high", HEIGHTS, initial_value="360")
        self.size = gui.add_slider("size of Gaussians", 0.05, 2.0, 0.05, 1.0)
        self.faintest = gui.add_slider("least opacity", 0.0, 1.0, 0.01, 0.0)
        self.shows = {
            "training": gui.add_checkbox("training views (blue)", False),
            "held out": gui.add_checkbox("held-out views (orange)", True),
        }
        self.photograph = gui.add_image(np.zeros((1, 1, 3), np.uint8), visible=False)
        for control in (self.picture, self.height, self.size, self.faintest):
            control.on_update(self._all_changed)
        for kind, control in self.shows.items():
            control.on_update(lambda _, kind=kind: self._show_frustums(kind))

    def _frustums(self, kind: str) -> dict[int, Any]:
        """A pyramid for each view of a kind (for 400 at most); a click opens its photograph."""
        facts, handles = self.facts, {}
        views = facts.train if kind == "training" else facts.test
        for view in spread_over(views, MOST_FRUSTUMS).tolist():
            wxyz, position, _, angle = self._camera(view)
            width, height = facts.sizes[view].tolist()
            handle = self.server.scene.add_camera_frustum(
                f"/{kind}/{view}",
                angle,
                width / height,
                scale=0.08 * facts.scene_scale,
                thickness=0.001 * facts.scene_scale,
                color=TRAINING_COLOR if kind == "training" else HELD_OUT_COLOR,
                wxyz=wxyz,
                position=position,
                visible=self.shows[kind].value,
            )
            handle.on_click(lambda event, view=view: self.open_view(view, event.client))
            handles[view] = handle
        return handles

    def _show_frustums(self, kind: str) -> None:
        views = self.facts.train if kind == "training" else self.facts.test
        for view in views.tolist():
            if view in self.frustums:
                self.frustums[view].visible = self.shows[kind].value

    def open_view(self, view: int, client: Any) -> None:
        """Shows a photograph, and takes a browser to where it was taken."""
        kind = "held out" if view in self.facts.test else "training"
        image, note = self._photograph(view)
        self.photograph.image = image
        self.photograph.label = f"{self.facts.names[view]} ({kind}){note}"
        self.photograph.visible = True
        if client is not None:
            _, position, target, angle = self._camera(view)
            with client.atomic():
                client.camera.up_direction = -self.facts.world_to_camera[view, 1, :3]
                client.camera.position = position
                client.camera.look_at = target
                client.camera.fov = angle

    def _photograph(self, view: int) -> tuple[np.ndarray, str]:
        """A small picture, uint8, and why it is black where the photograph cannot be had."""
        try:
            with self.reading:
                scene = self.open_scene()
        except PodvisionError as error:
            return NO_PICTURE, f": {error}"
        color = scene.view_on(scene.names.index(self.facts.names[view]), self.background)
        picture = Image.fromarray(np.rint(255.0 * color).astype(np.uint8))
        picture.thumbnail((PHOTOGRAPH_PIXELS, PHOTOGRAPH_PIXELS))
        return np.asarray(picture), ""

    def _connected(self, client: Any) -> None:
        client.camera.on_update(lambda _: self._changed(client.client_id))
        self._changed(client.client_id)

    def _changed(self, client_id: int) -> None:
        self.moved.add(client_id)
        self.wake.set()

    def _all_changed(self, event: Any = None) -> None:
        self.moved.update(self.server.get_clients())
        self.wake.set()

    def show(self, shown: Shown) -> None:
        """Takes over a checkpoint."""
        self.shown = shown
        self.say(status(shown, self.total))
        self._all_changed()

    def say(self, text: str) -> None:
        """The text at the top of the panel, Markdown."""
        self.text.content = text

    def update(self) -> None:
        """Sends what changed: Gaussians, and exact pictures to browsers that moved."""
        if self.shown is None:
            return
        mode, size, faintest = self.picture.value, self.size.value, self.faintest.value
        if mode == BROWSER and self._drawn != (self.shown.step, size, faintest):
            self._draw(size, faintest)
        clients = self.server.get_clients()
        if mode == EXACT:
            for client_id in list(self.moved):
                self.moved.discard(client_id)  # before rendering: it may move again meanwhile
                client = clients.get(client_id)
                if client is not None:
                    client.scene.set_background_image(self.exact_picture(client.camera))
                    self._background.add(client.client_id)
        if self._drawn is not None:
            # After the exact picture, whose compilation may take a while, has come.
            self.gaussians.visible = mode == BROWSER
        if mode == EXACT:
            return
        for client_id in self._background & set(clients):
            clients[client_id].scene.set_background_image(self.plain)
        self._background.clear()

    def _draw(self, size: float, faintest: float) -> None:
        assert self.shown is not None
        drawn = geometry.drawn_cloud(self.shown.cloud, size, faintest)
        self.gaussians = self.server.scene.add_gaussian_splats(
            "/gaussians",
            centers=drawn.centers,
            covariances=drawn.covariances,
            rgbs=drawn.colors,
            opacities=drawn.opacities,
            scale=1.0 / drawn.magnification,
        )
        self._drawn = (self.shown.step, size, faintest)

    def exact_picture(self, camera: Any) -> np.ndarray:
        """Our own rendering of a browser's view, uint8 [height, width, 3]."""
        assert self.shown is not None
        height = int(self.height.value)
        intrinsics, width = geometry.pinhole_of_browser(camera.fov, camera.aspect, height)
        pose = geometry.pose_of_browser(camera.wxyz, camera.position)
        return self.renderings.render(
            self.shown, pose, intrinsics, width, height, self.size.value, self.faintest.value
        )

    def close(self) -> None:
        """Ends the server."""
        self.server.stop()

"""The page holds all it needs, and a browser draws each part where the camera sees it."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand_object.data.rasterizer import draw
from hand_object.viewer.page import PLAIN, page
from training.errors import InputError

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--virtual-time-budget=3000",
    "--force-device-scale-factor=1",
]


@pytest.fixture(scope="module")
def text(truth, sequence) -> str:
    heat = {"object": np.linspace(0, 1, len(truth.object.mesh.vertices))}
    named = dataclasses.replace(truth, name="</script><b>{scene}")
    return page(named, heat, sequence.image, {"MPJPE": "1 < 2 mm"})


@pytest.fixture(scope="module")
def scene(text) -> dict:
    found = re.search(r'<script type="application/json" id="scene">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def array(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_nothing_is_fetched(text):
    class Links(html.parser.HTMLParser):
        found: list[str] = []

        def handle_starttag(self, tag, attrs):
            self.found += [value for name, value in attrs if name in ("src", "href")]

    Links().feed(text)
    assert not Links.found
    assert not re.search(r"https?://|fetch\(|import\s*\(|XMLHttpRequest|@import|url\(", text)


def test_names_are_text_not_markup(text):
    assert "&lt;/script&gt;&lt;b&gt;{scene}</h1>" in text
    assert "1 &lt; 2 mm" in text
    assert text.count("</script>") == 2


def test_meshes_and_motion_are_those_of_the_reconstruction(scene, truth):
    hand, thing = scene["parts"]
    assert [hand["name"], thing["name"]] == ["right", "object"]
    own = truth.hands["right"]
    np.testing.assert_allclose(
        array(hand["places"], "<f4").reshape(-1, 3), own.mesh.vertices, atol=1e-7
    )
    moves = array(hand["transforms"], "<f4").reshape(6, 16, 3, 4)
    np.testing.assert_allclose(moves, own.transforms[:, :, :3], atol=1e-6)
    np.testing.assert_array_equal(array(thing["faces"], "<u4"), truth.object.mesh.faces.reshape(-1))
    assert array(thing["heat"], "u1")[[0, -1]].tolist() == [0, 255]
    assert len(scene["images"]) == 6
    picture = Image.open(io.BytesIO(base64.b64decode(scene["images"][0])))
    assert picture.size == (64, 48)


def test_a_hand_with_too_many_joints_is_refused(truth):
    hand = truth.hands["right"]
    many = dataclasses.replace(hand, transforms=np.tile(hand.transforms, (1, 5, 1, 1)))
    with pytest.raises(InputError, match="80 joints"):
        page(dataclasses.replace(truth, hands={"right": many}))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_a_browser_draws_the_parts_where_the_camera_sees_them(text, truth, tmp_path):
    """Colored by part and through the camera of frame 4, against our own z-buffer."""
    (tmp_path / "page.html").write_text(text)
    wide, high = 640, 480
    shot = screenshot(tmp_path, "bare&view=camera&frame=4&color=2", wide, high)
    k = truth.intrinsics[4] * [[10], [10], [1]]
    k[:2, 2] += 4.5  # pixel centers: (x + 1/2) 10 - 1/2
    vertices = truth.parts(4)
    seen = draw(
        [(vertices[name][0], vertices[name][1].faces) for name in ("right", "object")],
        k,
        truth.world_to_camera[4],
        (high, wide),
    )
    share = shot / np.maximum(shot.sum(axis=-1, keepdims=True), 1)
    for number, name in enumerate(("right", "object")):
        tint = np.array(PLAIN[name]) / sum(PLAIN[name])
        drawn = np.abs(share - tint).max(axis=-1) < 0.02
        wanted = seen.mesh == number
        assert wanted.sum() > 3000
        overlap = (drawn & wanted).sum() / (drawn | wanted).sum()
        # An edge of a pixel on each side of a silhouette may fall either way.
        assert overlap > 0.95, (name, overlap)


def screenshot(folder: Path, wished: str, wide: int, high: int) -> np.ndarray:
    target = f"file://{folder}/page.html#{wished}"
    own = [f"--user-data-dir={folder}/user", f"--screenshot={folder}/shot.png"]
    command = [str(BROWSER), *FLAGS, *own, f"--window-size={wide},{high}", target]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    shot = np.array(Image.open(folder / "shot.png").convert("RGB")).astype(float)
    assert shot.shape == (high, wide, 3)
    return shot

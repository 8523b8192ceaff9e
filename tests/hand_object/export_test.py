"""Every format is written complete or not at all, and wrong arguments are refused."""

from __future__ import annotations

import argparse
import re
from types import SimpleNamespace

import numpy as np
import pytest

from hand_object import export
from hand_object.hands.sources import load_hand
from hand_object.metrics import scores
from training.errors import ConfigError, InputError


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def run(monkeypatch, truth, sequence, made_folder):
    """Exports the truth in place of a trained scene."""
    monkeypatch.setattr("hand_object.trained_scene.trained_scene", lambda *rest: truth)
    monkeypatch.setattr(scores, "POINTS", 300)
    images = np.stack([sequence.image(frame) for frame in range(len(sequence))])
    held = dict(np.load(made_folder / "ground_truth.npz"))
    opened = SimpleNamespace(
        images=images,
        sequence=sequence,
        truth=held,
        hands={"right": load_hand("parametric", "right")},
    )
    task = SimpleNamespace(opened=opened)

    def start(*words: str) -> list[str]:
        args = arguments(*words)
        export.check_arguments(args)
        return export.export(SimpleNamespace(task=task), SimpleNamespace(params={}), 7, args)

    start.opened = opened
    return start


@pytest.mark.parametrize("name", ["html", "glb", "npz", "png"])
def test_a_file_of_each_format(run, tmp_path, name):
    target = tmp_path / "new" / f"scene.{name}"
    lines = run("--format", name, "--output", str(target), "--rate", "24")
    assert target.stat().st_size > 5_000
    assert "step 7" in lines[0] and "triangles" in lines[0] and str(target) in lines[1]
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert ("4 joints a vertex" in lines[1]) == (name == "glb")


def test_figures_stand_beside_published_ones_with_their_protocols(run, tmp_path):
    run("--format", "txt", "--output", str(tmp_path / "a.txt"), "--protocol", "vertices")
    said = (tmp_path / "a.txt").read_text()
    assert "protocol vertices" in said and "HOLD's" in said
    assert "chamfer_hand 0 cm2" in said and "mpjpe 0 mm" in said
    # Speeds are by the rate of the video, for both.
    run("--output", str(tmp_path / "a.html"), "--rate", "15")
    page = (tmp_path / "a.html").read_text()
    jerks = re.findall(r"<td>(?:true_)?jerk</td><td>([\d.]+) m/s3", page)
    assert len(jerks) == 2 and jerks[0] == jerks[1]


def test_without_truth_there_are_no_figures(run, tmp_path):
    run.opened.truth.clear()
    with pytest.raises(InputError, match="no ground truth"):
        run("--format", "txt", "--output", str(tmp_path / "a.txt"))
    run("--output", str(tmp_path / "a.html"))
    assert "<td>mpjpe" not in (tmp_path / "a.html").read_text()


def test_meshes_of_rest_and_of_each_frame(run, tmp_path):
    run("--format", "ply", "--output", str(tmp_path / "rest"))
    assert {p.name for p in (tmp_path / "rest").iterdir()} == {"right_rest.ply", "object.ply"}
    (line,) = run("--format", "obj", "--output", str(tmp_path / "all"), "--posed")[1:]
    assert len(list((tmp_path / "all" / "posed").iterdir())) == 12 and "14 meshes" in line


def test_a_video_has_all_frames(run, tmp_path):
    reader = pytest.importorskip("imageio_ffmpeg")
    run("--format", "mp4", "--output", str(tmp_path / "a.mp4"))
    frames = reader.read_frames(str(tmp_path / "a.mp4"))
    assert next(frames)["size"] == (3 * 64, 48)
    assert sum(1 for _ in frames) == 6


@pytest.mark.parametrize(
    "words, said",
    [
        (["--output", "a.glb"], "ends in .html"),
        (["--format", "glb", "--output", "a.glb", "--posed"], "every frame anyway"),
        (["--output", "a.html", "--resolution", "4"], "16 to 512"),
        (["--output", "a.html", "--rate", "0"], "above 0"),
        (["--format", "ply", "--output", __file__], "needs a folder"),
    ],
)
def test_wrong_arguments_are_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        export.check_arguments(arguments(*words))


def test_an_output_that_cannot_be_written_is_said(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run("--format", "npz", "--output", str(tmp_path / "file" / "a.npz"))

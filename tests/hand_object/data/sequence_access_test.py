"""A sequence that cannot be trained on is refused with what to do."""

import numpy as np
import pytest

from hand_object.config import BackgroundConfig, SequenceConfig
from hand_object.data.frames import FrameSource, content_of, frame_arrays, nodes_of
from hand_object.data.sequence_access import open_sequence, sequence_folder
from hand_object.synthetic import Scene, make_sequence
from training.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequence")
    make_sequence(Scene(frames=4, size=(24, 32), object="box"), folder)
    return folder


def test_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.delenv("PODVISION_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"config\.sequence\.path = 'nowhere' is no folder"):
        sequence_folder("nowhere")


def test_a_folder_under_the_data_folder(monkeypatch, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setenv("PODVISION_DATA", str(tmp_path))
    assert sequence_folder("a/b") == tmp_path / "a" / "b"


def test_a_sequence_too_short_to_hold_frames_out(folder):
    with pytest.raises(ConfigError, match="leaves no frame of 4 to evaluate on"):
        open_sequence(SequenceConfig(str(folder), hold_out=5))


def test_an_unknown_hand_model_is_named_with_the_places_that_were_looked_at(folder):
    with pytest.raises(ConfigError, match=r"'nobody_right' .* is neither embedded"):
        open_sequence(SequenceConfig(str(folder), hold_out=2, hand="nobody_{side}"))


def test_arrays_of_frames(folder):
    opened = open_sequence(SequenceConfig(str(folder), hold_out=2, longest=16))
    assert nodes_of(opened.sequence) == ("object", "right")
    arrays = frame_arrays(opened, BackgroundConfig(kind="median_frame"))
    assert arrays["images"].shape == (4, 12, 16, 3) and arrays["images"].dtype == np.uint8
    assert arrays["boxes"].shape == (4, 2, 4)
    # The camera stands two scene units from the object, and what is there says so by class.
    np.testing.assert_allclose(
        np.linalg.norm(arrays["camera_to_scene"][:, :3, 3], axis=1), 2, atol=0.1
    )
    np.testing.assert_array_equal(arrays["there"], [[True, True, True, False]] * 4)
    free = opened.masks[0] == 0
    wrong = np.abs(arrays["backdrop"].astype(int) - opened.images[0])[free]
    assert np.median(wrong) <= 1
    constant = frame_arrays(opened, BackgroundConfig(kind="constant"))["backdrop"]
    assert (constant == 128).all()
    assert "backdrop" not in frame_arrays(opened, BackgroundConfig())


def test_fingerprints_tell_frames_and_pixels_apart(folder):
    opened = open_sequence(SequenceConfig(str(folder), hold_out=2))
    content = content_of(opened)
    one, other = (FrameSource("made", np.array(f), content) for f in ([0, 2], [1, 3]))
    assert one.fingerprint != other.fingerprint
    assert {one.identity(0), one.identity(1)}.isdisjoint({other.identity(0), other.identity(1)})
    opened.images[0, 0, 0] ^= 1
    assert content_of(opened) != content

"""Large pictures in tiles: everything is seen whole somewhere, and comes back as one detection."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rtdetr.boxes import xyxy_px
from rtdetr.pictures_in import Frame
from rtdetr.scoring.found import Found, nothing
from rtdetr.tiles import Tile, Tiling, Window, joined, merged, tiles_of
from training.errors import ConfigError

SIZE = (100, 180)
WHOLE, LEFT, RIGHT = Window(0, 0, *SIZE), Window(0, 0, 100, 100), Window(0, 80, 100, 180)


def found(*rows, window=WHOLE):
    """Detections (left, top, right, bottom, label, score) on the picture, as a window has them."""
    values = np.array([row[:4] for row in rows], float).reshape(-1, 4)
    values -= [window.left, window.top, window.left, window.top]
    size = np.array([window.bottom - window.top, window.right - window.left])
    labels, scores = (np.array([row[i] for row in rows]) for i in (4, 5))
    return Found(xyxy_px(values, size), labels.astype(int), scores.astype(float))


def together(left, right, whole=(), most=100):
    parts = [found(*whole), found(*left, window=LEFT), found(*right, window=RIGHT)]
    parts = [part if len(part) else nothing(SIZE) for part in parts]
    result = merged((WHOLE, LEFT, RIGHT), parts, SIZE, most)
    return [
        (*np.round(box, 6).tolist(), label, score)
        for box, label, score in zip(
            result.boxes.values, result.labels.tolist(), result.scores.tolist()
        )
    ]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("size", [(64, 64), (65, 200), (480, 640), (1080, 1920)])
def test_what_is_no_larger_than_the_overlap_lies_whole_in_a_tile(size, share):
    tiling = Tiling(64, share)
    whole, *tiles = tiling.windows(size)
    assert whole == Window(0, 0, *size)
    for axis, (first, last) in enumerate((("top", "bottom"), ("left", "right"))):
        spans = sorted({(getattr(t, first), getattr(t, last)) for t in tiles or [whole]})
        assert spans[0][0] == 0 and spans[-1][1] == size[axis]
        assert all(end - start == min(64, size[axis]) for start, end in spans)
        shared = [before[1] - after[0] for before, after in itertools.pairwise(spans)]
        assert all(pixels >= share * 64 for pixels in shared)


def test_a_picture_of_one_tile_is_looked_at_once():
    assert Tiling(64, 0.2).windows((64, 50)) == [Window(0, 0, 64, 50)]


def test_tiles_hold_the_pixels_of_their_window_and_unreadable_frames_pass():
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    frames = [Frame("a", 1, pixels), Frame("b", 2, "b is damaged")]
    parts = list(tiles_of(frames, Tiling(100, 0.2)))
    tiles = [part for part in parts if isinstance(part, Tile)]
    assert [tile.window for tile in tiles] == [WHOLE, LEFT, RIGHT] and parts[3:] == frames[1:]
    np.testing.assert_array_equal(tiles[2].pixels, pixels[:, 80:])
    assert [tile.last for tile in tiles] == [False, False, True]


def test_an_object_in_two_windows_is_one_detection_of_the_mean_box():
    box, other = (82, 10, 96, 30), (84, 10, 98, 30)
    (row,) = together([(*box, 1, 0.6)], [(*other, 1, 0.3)])
    assert row == pytest.approx((82 + 2 / 3, 10, 96 + 2 / 3, 30, 1, 0.6), abs=1e-6)


def test_what_two_windows_see_apart_stays_apart():
    rows = together([(10, 10, 30, 30, 0, 0.9)], [(150, 10, 170, 30, 0, 0.8)])
    assert rows == [(10, 10, 30, 30, 0, 0.9), (150, 10, 170, 30, 0, 0.8)]


def test_other_classes_and_the_same_window_are_never_merged():
    box, near = (82, 10, 96, 30), (83, 10, 97, 30)
    assert len(together([(*box, 0, 0.6)], [(*box, 1, 0.5)])) == 2
    assert len(together([(*box, 0, 0.6), (*near, 0, 0.5)], [])) == 2


def test_a_cut_piece_goes_into_the_box_that_shows_the_object_whole():
    whole = (70, 10, 130, 40)
    pieces = [(70, 10, 100, 40, 0, 0.9)], [(80, 10, 130, 40, 0, 0.5)]
    # The surest box is a piece: the box is of the whole picture, the score of the piece.
    assert together(*pieces, [(*whole, 0, 0.7)]) == [(*whole, 0, 0.9)]


def test_pieces_alone_are_joined_where_they_overlap_enough():
    rows = together([(70, 10, 100, 40, 0, 0.9)], [(80, 10, 105, 40, 0, 0.5)])
    assert rows == [(70, 10, 105, 40, 0, 0.9)]


def test_the_border_of_the_picture_cuts_nothing():
    box, other = (150, 60, 180, 100), (154, 64, 180, 100)
    assert together([], [(*box, 0, 0.5)], [(*other, 0, 0.5)]) == [(152, 62, 180, 100, 0, 0.5)]


def test_a_score_of_zero_still_has_a_box():
    assert together([(82, 10, 96, 30, 0, 0.0)], []) == [(82, 10, 96, 30, 0, 0.0)]


def test_a_small_object_inside_of_a_large_one_is_not_a_piece_of_it():
    rows = together([(20, 20, 30, 30, 0, 0.9)], [], [(0, 0, 180, 100, 0, 0.8)])
    assert len(rows) == 2


def test_a_box_that_is_hardly_believed_does_not_move_a_sure_one():
    box, vague = (82, 10, 96, 30), (86, 10, 100, 30)
    assert together([(*box, 0, 0.9)], [(*vague, 0, 0.01)]) == [(*box, 0, 0.9)]


def test_the_best_detections_are_kept_and_none_may_be_there():
    rows = [(10 * i, 0, 10 * i + 8, 8, 0, 0.1 * i) for i in range(1, 6)]
    assert [row[5] for row in together(rows, [], most=2)] == pytest.approx([0.5, 0.4])
    assert together([], []) == []


def test_pictures_come_back_in_order_with_what_their_own_windows_show():
    frames = [Frame(name, n, np.zeros((*SIZE, 3), np.uint8)) for n, name in enumerate("ab")]
    tiles = [tile for tile in tiles_of(frames, Tiling(100, 0.2)) if isinstance(tile, Tile)]
    parts = [
        found((90, 5, 98, 15, 0, 0.5 + 0.1 * tile.id), window=tile.window)
        if tile.window.left <= 90 < tile.window.right
        else nothing(SIZE)
        for tile in tiles
    ]
    pictures = list(joined(zip(tiles, parts), 10))
    assert [frame for frame, _ in pictures] == frames
    for frame, result in pictures:
        assert result.scores.tolist() == [0.5 + 0.1 * frame.id]
        np.testing.assert_allclose(result.boxes.values, [[90, 5, 98, 15]])


@pytest.mark.parametrize(("side", "share"), [(31, 0.2), (64, -0.1), (64, 0.9)])
def test_tilings_that_cannot_be_are_refused(side, share):
    with pytest.raises(ConfigError, match=r"--tile 31|--overlap (-0.1|0.9)"):
        Tiling(side, share)

"""A token's vector tells its row first and its column second, on any rectangle."""

from __future__ import annotations

import numpy as np

from rtdetr.model.positions import position_embedding


def encoded(place, quarter):
    angle = place * 10_000.0 ** -(np.arange(quarter) / quarter)
    return np.concatenate([np.sin(angle), np.cos(angle)])


def test_each_token_of_a_rectangle_tells_its_row_and_its_column():
    height, width, channels = 3, 5, 16
    table = position_embedding(height, width, channels, "y_major")
    for row, column in np.ndindex(height, width):
        wanted = np.concatenate([encoded(row, 4), encoded(column, 4)])
        np.testing.assert_allclose(table[row * width + column], wanted, atol=1e-6)


def test_the_other_order_is_the_authors_and_differs_on_rectangles_only():
    square = [position_embedding(4, 4, 8, order) for order in ("y_major", "x_major")]
    wide = [position_embedding(3, 5, 8, order) for order in ("y_major", "x_major")]
    assert np.abs(wide[0] - wide[1]).max() > 1
    # Theirs: columns count slowest, and the vector tells the column first.
    columns, rows = np.divmod(np.arange(15), 3)
    wanted = np.concatenate(
        [np.stack([encoded(place, 2) for place in places]) for places in (columns, rows)], axis=1
    )
    np.testing.assert_allclose(wide[1], wanted, atol=1e-6)
    np.testing.assert_allclose(square[0], square[1], atol=1e-6)

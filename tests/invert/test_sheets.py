"""Is every source at its head, and every cell in its row and column?"""

from __future__ import annotations

import numpy as np

from invert.sheets import GAP_PX, LABEL_PX, MAX_SIDE_PX, grid


def colour(value):
    return np.full((16, 16, 3), value, np.uint8)


def test_heads_and_cells_lie_where_they_belong():
    cells = [[colour(100 + 10 * row + column) for column in range(3)] for row in range(2)]
    sheet = grid([colour(i) for i in range(3)], [colour(50 + i) for i in range(2)], cells, cell_px=32)

    def at(row, column):
        return sheet[LABEL_PX + row * (32 + GAP_PX) + 16, GAP_PX + column * (32 + GAP_PX) + 16, 0]

    assert [at(0, column) for column in range(1, 4)] == [0, 1, 2]
    assert [at(row, 0) for row in (1, 2)] == [50, 51]
    assert [[at(row, column) for column in range(1, 4)] for row in (1, 2)] == [[100, 101, 102], [110, 111, 112]]
    assert at(0, 0) == 255


def test_a_sheet_of_many_faces_stays_a_picture_that_can_be_opened():
    cells = [[colour(0)] * 60 for _ in range(2)]
    sheet = grid([colour(0)] * 60, [colour(0)] * 2, cells)
    assert max(sheet.shape) <= MAX_SIDE_PX

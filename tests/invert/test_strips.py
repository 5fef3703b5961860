"""Does the preview show every face of every direction, from end to end?"""

from __future__ import annotations

import torch

from editing.directions import Direction
from invert.strips import strips


def test_a_sheet_has_a_row_for_each_face_and_a_column_for_each_strength(tiny_generator):
    directions = [Direction(f"d{k}", torch.eye(32)[k], tiny_generator.identity) for k in range(2)]
    seen = []
    sheet = strips(directions, tiny_generator, 2, (-1.0, 0.0, 1.0), progress=lambda *said: seen.append(said[1:]))
    assert sheet.shape == (6 + 2 * (30 + 2 * 198), 6 + 3 * 198, 3)
    assert seen == [(1, 2), (2, 2)]
    tile = sheet[30 : 30 + 192, 6 : 6 + 3 * 198]
    left, middle, right = (tile[:, k * 198 : k * 198 + 192].astype(int) for k in range(3))
    assert abs(left - middle).max() > 0
    assert abs(middle - right).max() > 0

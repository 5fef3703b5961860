from __future__ import annotations

import numpy as np
import pytest

from invert.panels import GAP_PX, MARGIN_PX, PANEL_PX, Panel, comparison


def colour(value):
    return np.full((64, 64, 3), value, np.uint8)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_every_panel_is_on_the_sheet(count):
    sheet = comparison([Panel(colour(10 * (i + 1)), f"panel {i}") for i in range(count)])
    columns = {5: 3, 9: 3}.get(count, count)
    for i in range(count):
        left = MARGIN_PX + i % columns * (PANEL_PX + GAP_PX)
        column = sheet[:, left + PANEL_PX // 2, 0]
        assert (column == 10 * (i + 1)).sum() >= PANEL_PX


def test_a_label_leaves_ink_below_its_panel():
    plain, labelled = (comparison([Panel(colour(128), title, note)]) for title, note in (("", ""), ("age +3", "MSE 0.01")))
    below = slice(MARGIN_PX + PANEL_PX, None)
    assert (labelled[below] < 128).sum() > (plain[below] < 128).sum()

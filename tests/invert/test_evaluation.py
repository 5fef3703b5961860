from __future__ import annotations

import torch

from invert.evaluation import evaluate, table
from invert.inversion import Inversion


def perfect(image):
    return Inversion(torch.zeros(1, 2, 3), image)


def black(image):
    return Inversion(torch.zeros(1, 2, 3), torch.full_like(image, -1.0))


def test_every_face_gets_a_row_by_every_method(cheap_distance):
    faces = torch.full((3, 3, 256, 256), 255, dtype=torch.uint8)
    told = []
    rows = evaluate({"perfect": perfect, "black": black}, faces, ["a", "b", "c"], cheap_distance, on_face=told.append)
    assert rows == told
    assert [(row.method, row.face) for row in rows] == [(m, f) for m in ("perfect", "black") for f in "abc"]
    assert [row.mse for row in rows] == [0, 0, 0, 4, 4, 4]
    assert [row.perceptual for row in rows] == [0, 0, 0, 2, 2, 2]


def test_the_table_names_the_distance_and_has_means(cheap_distance):
    faces = torch.full((2, 3, 256, 256), 255, dtype=torch.uint8)
    rows = evaluate({"black": black}, faces, ["a", "b"], cheap_distance)
    text = table(rows, cheap_distance.name)
    assert "mean absolute difference" in text
    assert "| black | 2 | 2.0000 ± 0.0000 | 4.0000 ± 0.0000 |" in text

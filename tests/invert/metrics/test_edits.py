"""Are an edit's effect and its side effects told apart, in units that compare?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generators.errors import UnknownName
from invert.attributes import ATTRIBUTES
from invert.errors import MetricError
from invert.metrics import edits
from invert.metrics.edits import SPREADS, describe_leak, describe_moved, edit_effect, measure_effect, score_images

BEFORE = {"age": torch.tensor([40.0, 50.0]), "smile": torch.tensor([1.0, 1.2]), "yaw": torch.tensor([0.0, 8.0])}
TOY_SPREADS = {"age": 10.0, "smile": 0.1, "yaw": 8.0}


def moved(**by):
    return {name: values + by.get(name, 0.0) for name, values in BEFORE.items()}


def test_effect_and_leak_are_in_standard_deviations():
    found = edit_effect(BEFORE, moved(age=20.0, smile=-0.1, yaw=4.0), TOY_SPREADS, "age")
    assert found.moved.tolist() == pytest.approx([2, 2])
    assert found.leaks["smile"].tolist() == pytest.approx([-1, -1], rel=1e-5)
    assert found.leak.tolist() == pytest.approx([0.75, 0.75])
    assert found.leak_ratio.tolist() == pytest.approx([0.375, 0.375])


def test_an_edit_that_does_nothing_moves_and_leaks_nothing():
    found = edit_effect(BEFORE, BEFORE, TOY_SPREADS, "smile")
    assert found.moved.tolist() == found.leak.tolist() == [0, 0]


def test_a_face_that_is_lost_has_no_value_and_costs_no_other_its():
    after = moved(age=10.0)
    after = {name: torch.tensor([float("nan"), values[1]]) for name, values in after.items()}
    found = edit_effect(BEFORE, after, TOY_SPREADS, "age")
    assert found.moved[0].isnan()
    assert found.leak[0].isnan()
    assert found.moved[1] == 1
    assert found.leak[1] == 0


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UnknownName, match="did you mean smile"):
        edit_effect(BEFORE, BEFORE, TOY_SPREADS, "smiles")
    with pytest.raises(MetricError, match="without one: yaw"):
        edit_effect(BEFORE, BEFORE, TOY_SPREADS | {"yaw": 0.0}, "age")
    with pytest.raises(MetricError, match="two or more"):
        edit_effect({"age": BEFORE["age"]}, {"age": BEFORE["age"]}, TOY_SPREADS, "age")


def test_images_are_scored_one_by_one(monkeypatch):
    monkeypatch.setattr(
        edits, "score_face", lambda photo, names: dict.fromkeys(names, float(photo.mean()) if photo.any() else np.nan)
    )
    images = torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 8, 8)
    scores = score_images(images, ["age", "smile"])
    assert scores["age"].isnan().tolist() == [True, False]
    assert scores["smile"][1] == 255


def test_the_descriptions_name_the_scorer():
    assert describe_moved("age").backbone == ATTRIBUTES["age"].how
    assert describe_leak("age").arrow == "↓"


def test_two_sets_of_images_are_scored_and_compared(monkeypatch):
    monkeypatch.setattr(
        edits, "score_face", lambda photo, names: {name: float(photo.mean()) * SPREADS[name] / 255 for name in names}
    )
    black, white = torch.full((2, 3, 512, 512), -1.0), torch.ones(2, 3, 512, 512)
    found = measure_effect(black, white, "smile")
    assert found.moved.tolist() == pytest.approx([1, 1])
    assert found.leaks.keys() == SPREADS.keys() - {"smile"}
    assert found.leak.tolist() == pytest.approx([1, 1])
    with pytest.raises(UnknownName, match="known spread"):
        measure_effect(black, white, "hat")
    assert SPREADS.keys() <= ATTRIBUTES.keys()

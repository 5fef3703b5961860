"""Do the figures that are measured say what the faces did, and go on where they were stopped?"""

from __future__ import annotations

import math

import pytest
import torch

import invert.measure
from editing.directions import Direction
from generators.base import Identity
from generators.errors import LatentMismatch, ToolkitError
from invert.direction_report import missed, report, with_figures
from invert.identity import Descriptor
from invert.measure import STRENGTHS, Measured, measure_direction

X = torch.tensor(STRENGTHS)


def measured(smile: torch.Tensor, similarity: torch.Tensor | None = None) -> Measured:
    return Measured("smile", {"smile": smile, "age": 0.3 * X.repeat(len(smile), 1)}, {"smile": 2.0, "age": 1.0}, similarity)


def test_a_score_that_rises_everywhere_does_and_one_that_dips_does_not():
    dips = X.clone()
    dips[4] = dips[3] - 0.1
    both = measured(torch.stack([X, dips]))
    assert both.rising() == 0.5
    assert both.rising(0.1) == 1.0
    assert both.rising(0.01) == 0.5


def test_a_score_that_stands_still_or_is_lost_has_not_risen():
    lost = X.clone()
    lost[0] = math.nan
    assert measured(torch.stack([torch.zeros(7), lost])).rising() == 0
    assert measured(torch.zeros(1, 7)).rising(0.1) == 1


def test_the_slope_is_counted_in_deviations():
    both = measured(torch.stack([X * 3 + 9, X]))
    assert both.moved("smile") == pytest.approx(1.0)
    assert both.moved("age") == pytest.approx(0.3)


def test_similarity_is_of_both_ends():
    similarity = torch.tensor([[0.1, 0.7, 0.9, 1.0, 0.9, 0.8, 0.2]])
    assert measured(X[None], similarity).similarity_at_ends() == (pytest.approx(0.75), pytest.approx(0.7))
    assert measured(X[None]).similarity_at_ends() is None


def some_direction(**quality) -> Direction:
    return Direction("smile", torch.eye(32)[0], Identity("tiny", "0" * 64), quality={"held_out_accuracy": 0.95, **quality})


def test_what_was_promised_and_missed_is_said_in_words():
    good, bad = measured(torch.stack([X] * 20), torch.ones(20, 7)), measured(-X[None], torch.full((1, 7), 0.5))
    directions = {"good": some_direction(), "bad": some_direction(held_out_accuracy=0.8)}
    assert missed({"good": directions["good"]}, {"good": good}) == []
    lines = "\n".join(missed(directions, {"good": good, "bad": bad}))
    for part in ("accuracy 0.800, 0.90 asked for", "in 0% of faces", "95% asked for", "similarity falls to 0.50"):
        assert part in lines


def test_the_table_names_what_moves_along(tmp_path):
    directions, results = {"smile": some_direction()}, {"smile": measured(X[None])}
    table = report(directions, results, Identity("tiny", "0" * 64)).splitlines()
    assert "age +0.30" in table[2]
    assert "100% of 1" in table[2]
    assert "not measured" in table[2]
    torch.save(torch.eye(32)[:1] * -2, tmp_path / "smile.pt")
    assert report(directions, results, Identity("tiny", "0" * 64), tmp_path).splitlines()[2].endswith("| -1.00 |")


def test_figures_are_written_into_the_card():
    quality = with_figures(some_direction(), measured(X[None], torch.ones(1, 7))).quality
    assert (quality["rising"], quality["rising_faces"], quality["moved"]["age"]) == (1.0, 1, pytest.approx(0.3))
    assert quality["similarity_within_2"] == [1.0, 1.0]


@pytest.fixture
def bright(tiny_generator):
    """The direction in which the tiny generator's pictures become redder, by their gradient."""
    w = tiny_generator.w_avg[None].clone().requires_grad_()
    tiny_generator.synthesis(w[:, None].repeat(1, tiny_generator.num_ws, 1))[:, 0].mean().backward()
    return Direction.of("red", w.grad[0], tiny_generator.identity, unit=0.2, quality={"attribute": "red"})


SCORERS = {
    "red": lambda reading: float(reading.face[..., 0].mean()),
    "green": lambda reading: float(reading.face[..., 1].mean()),
}


def test_faces_are_moved_from_end_to_end(tiny_generator, bright, monkeypatch):
    monkeypatch.setattr(invert.measure, "_descriptor", lambda: None)
    result = measure_direction(bright, tiny_generator, 8, scorers=SCORERS)
    assert (result.faces, result.attribute, result.similarity) == (8, "red", None)
    assert result.moved("red") > 0.1
    assert result.rising() > 0.5
    backwards = Direction("red", -bright.vector, bright.generator, unit=0.2, quality=bright.quality)
    torch.testing.assert_close(measure_direction(backwards, tiny_generator, 8, scorers=SCORERS).scores["red"].flip(1),
                               result.scores["red"])  # fmt: skip


def test_a_measurement_goes_on_and_more_faces_cost_only_those(tiny_generator, bright, tmp_path, monkeypatch):
    monkeypatch.setattr(invert.measure, "_descriptor", lambda: None)
    drawn, draw = [], invert.measure.drawer(tiny_generator)

    def counting(w_plus):
        drawn.append(len(w_plus))
        return draw(w_plus)

    few = measure_direction(bright, tiny_generator, 5, scorers=SCORERS, folder=tmp_path, draw=counting)
    assert sum(drawn) == 5 * 7
    more = measure_direction(bright, tiny_generator, 8, scorers=SCORERS, folder=tmp_path, draw=counting)
    assert sum(drawn) == 8 * 7
    torch.testing.assert_close(more.scores["red"][:5], few.scores["red"])
    again = measure_direction(bright, tiny_generator, 5, scorers=SCORERS, folder=tmp_path, draw=counting)
    assert sum(drawn) == 8 * 7
    torch.testing.assert_close(again.scores["green"], few.scores["green"])


def test_another_direction_of_the_same_name_is_measured_anew(tiny_generator, bright, tmp_path, monkeypatch):
    monkeypatch.setattr(invert.measure, "_descriptor", lambda: None)
    first = measure_direction(bright, tiny_generator, 2, scorers=SCORERS, folder=tmp_path)
    other = Direction("red", -bright.vector, bright.generator, unit=0.2, quality=bright.quality)
    assert measure_direction(other, tiny_generator, 2, scorers=SCORERS, folder=tmp_path).moved("red") == pytest.approx(
        -first.moved("red")
    )


def test_similarity_to_the_unedited_face_is_measured_where_a_descriptor_is(tiny_generator, bright, monkeypatch):
    descriptor = Descriptor("toy", "mean colours", lambda image: image.mean((2, 3)))
    monkeypatch.setattr(invert.measure, "_descriptor", lambda: descriptor)
    similarity = measure_direction(bright, tiny_generator, 3, scorers=SCORERS).similarity
    assert similarity[:, 3].tolist() == [1.0] * 3
    assert similarity.isfinite()[0].tolist() == [False, True, False, True, False, True, False]
    assert (similarity[:, [1, 5]] < 1).all()


def test_what_cannot_be_measured_is_refused(tiny_generator, bright):
    with pytest.raises(ToolkitError, match="nothing scores 'hat'"):
        measure_direction(bright, tiny_generator, 2, attribute="hat", scorers=SCORERS)
    with pytest.raises(ToolkitError, match="expected 1 to 1000"):
        measure_direction(bright, tiny_generator, 0, scorers=SCORERS)
    tiny_generator.identity = Identity("other", "1" * 64)
    with pytest.raises(LatentMismatch, match="other"):
        measure_direction(bright, tiny_generator, 2, scorers=SCORERS)

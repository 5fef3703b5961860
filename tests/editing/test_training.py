"""Does the support vector machine find a direction that was planted, and say so when there is none to find?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editing.errors import TrainingDataError
from editing.training import fit_direction, orthogonalise

relaxed = settings(max_examples=40, deadline=None)  # The first example also pays for imports.


def planted(seed: int, noise: float, count: int = 400, width: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(width, generator=rng), dim=0)
    codes = torch.randn(count, width, generator=rng) * 0.4 + 3
    return codes, codes @ direction + noise * torch.randn(count, generator=rng), direction


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_direction_is_found_with_its_sign(seed):
    codes, scores, direction = planted(seed, noise=0.05)
    fit = fit_direction(codes, scores, seed=seed)
    assert fit.normal @ direction > 0.93
    assert fit.accuracy > 0.95
    assert fit.correlation > 0.9
    assert fit.spread == pytest.approx(0.4, rel=0.15)
    assert fit.normal.norm() == pytest.approx(1)
    assert (fit.num_fitted, fit.num_held_out) == (168, 72)


def test_scores_without_meaning_give_the_accuracy_of_guessing():
    codes, scores, _ = planted(0, noise=1000.0, count=1000)
    assert fit_direction(codes, scores).accuracy < 0.65


def test_the_same_seed_gives_the_same_direction():
    codes, scores, _ = planted(0, noise=0.3)
    assert torch.equal(fit_direction(codes, scores, seed=5).normal, fit_direction(codes, scores, seed=5).normal)


def test_scale_and_place_of_the_codes_do_not_matter():
    codes, scores, _ = planted(0, noise=0.1)
    torch.testing.assert_close(fit_direction(codes, scores).normal, fit_direction(codes * 9 - 4, scores).normal)


def test_one_class_is_refused():
    codes, _, _ = planted(0, noise=0.0)
    with pytest.raises(TrainingDataError, match="one class only"):
        fit_direction(codes, torch.ones(len(codes)))


def test_a_rare_class_that_does_not_fill_a_tail_is_still_told_from_the_rest():
    codes, scores, direction = planted(0, noise=0.0)
    fit = fit_direction(codes, (scores > scores.quantile(0.6)).float(), fraction=0.3)
    assert fit.normal @ direction > 0.85


def test_a_label_that_few_have_is_told_from_as_many_of_the_others():
    codes, scores, direction = planted(0, noise=0.0, count=1000)
    fit = fit_direction(codes, (scores > scores.quantile(0.95)).float())
    assert fit.num_fitted + fit.num_held_out == 2 * 50
    assert fit.normal @ direction > 0.8


def test_a_label_that_hardly_any_has_is_refused_by_name():
    codes, scores, _ = planted(0, noise=0.0)
    with pytest.raises(TrainingDataError, match="4 have the label 1, at least 10"):
        fit_direction(codes, (scores >= scores.topk(4).values[-1]).float())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    codes, scores, _ = planted(0, noise=0.0)
    scores[7] = bad
    with pytest.raises(TrainingDataError, match="1 of 400 scores"):
        fit_direction(codes, scores)


def test_codes_that_are_no_numbers_are_refused():
    codes, scores, _ = planted(0, noise=0.0)
    codes[7, 3] = math.nan
    with pytest.raises(TrainingDataError, match="codes"):
        fit_direction(codes, scores)


def test_too_few_samples_are_refused_with_the_number_that_is_needed():
    codes, scores, _ = planted(0, noise=0.0, count=30)
    with pytest.raises(TrainingDataError, match=r"30 leave 9 .* at least 10"):
        fit_direction(codes, scores)


@pytest.mark.parametrize("arguments", [{"fraction": 0.0}, {"fraction": 0.6}, {"held_out": 0.0}, {"held_out": 1.0}])
def test_fractions_out_of_range_are_refused(arguments):
    codes, scores, _ = planted(0, noise=0.0)
    with pytest.raises(ValueError, match="must be in"):
        fit_direction(codes, scores, **arguments)


@relaxed
@given(st.integers(0, 2**16), st.integers(0, 4))
def test_a_conditional_direction_leaves_the_others_alone(seed, count):
    rng = torch.Generator().manual_seed(seed)
    vector, *others = torch.randn(1 + count, 9, generator=rng)
    result = orthogonalise(vector, others)
    assert result.norm() == pytest.approx(1, abs=1e-5)
    assert all(abs(float(result @ other)) < 1e-4 * float(other.norm()) for other in others)
    assert result @ vector > 0


def test_half_an_orthogonalisation_halves_what_is_shared():
    vector, other = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([2.0, 0.0, 0.0])
    expected = torch.nn.functional.normalize(torch.tensor([0.5, 1.0, 0.0]), dim=0)
    torch.testing.assert_close(orthogonalise(vector, [other], [0.5]), expected)


def test_a_direction_in_the_span_of_others_is_refused():
    first, second = torch.eye(3)[:2]
    with pytest.raises(TrainingDataError, match="nothing of the direction is left"):
        orthogonalise(first + second, [first, second])

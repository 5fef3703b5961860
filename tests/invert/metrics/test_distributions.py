"""Do FID, KID, precision and recall agree with torch-fidelity, numpy and closed forms, and refuse what means nothing?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from invert.errors import MetricError, TooFewImages
from invert.metrics.distributions import FID, KID, PrecisionRecall, frechet_distance, kernel_distance, precision_recall
from invert.metrics.features import FeatureNetwork

WIDTH = 24
NETWORK = FeatureNetwork("toy", "first pixels", WIDTH, lambda image: image.flatten(1)[:, :WIDTH])


@pytest.fixture(scope="module")
def sets():
    """Features of 400 drawn and 300 real images: skewed, shifted and correlated."""
    random = torch.Generator().manual_seed(0)
    mix = torch.randn(WIDTH, WIDTH, generator=random) / WIDTH**0.5
    drawn = torch.randn(400, WIDTH, generator=random).exp() @ mix
    real = torch.randn(300, WIDTH, generator=random).exp() @ mix * 1.1 + 0.1
    return drawn, real


def scipy_fid(a, b):
    a, b = a.double().numpy(), b.double().numpy()
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * np.real(sqrtm(s @ t))))


def test_fid_matches_scipys_matrix_root(sets):
    assert frechet_distance(*sets) == pytest.approx(scipy_fid(*sets), rel=1e-6)


def test_fid_of_two_gaussians_is_the_closed_form():
    # Whitened samples have exactly the moments asked for: means 0 and 2, covariances 1 and 9.
    random = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=random, dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / 49)).T
    assert frechet_distance(x, 3 * x + 2) == pytest.approx(4 * 2**2 + 4 * (3 - 1) ** 2, rel=1e-8)


def test_fid_of_a_set_and_itself_is_zero(sets):
    assert frechet_distance(sets[0], sets[0]) == pytest.approx(0, abs=1e-6)


def test_fid_does_not_care_how_features_arrive(sets):
    once, piecewise = FID(NETWORK), FID(NETWORK)
    for is_real, features in zip((False, True), sets, strict=True):
        once.update(features, is_real)
        for part in features.flip(0).split(7):
            piecewise.update(part, is_real)
    assert once.compute()["fid-toy"] == pytest.approx(piecewise.compute()["fid-toy"], rel=1e-9)


def test_kid_of_whole_sets_matches_torch_fidelity(sets):
    drawn, real = (features[:300] for features in sets)
    theirs = kid_features_to_metric(drawn.double(), real.double(), kid_subsets=1, kid_subset_size=300, verbose=False)
    ours, deviation = kernel_distance(drawn, real)
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert deviation is None


def test_kid_averages_over_subsets_and_depends_on_the_seed_alone(sets):
    whole, _ = kernel_distance(sets[0][:300], sets[1])
    torch.manual_seed(1)
    first = kernel_distance(*sets, subsets=50, subset_size=100)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert kernel_distance(*sets, subsets=50, subset_size=100) == first
    assert kernel_distance(*sets, subsets=50, subset_size=100, seed=1) != first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers go on undisturbed"
    assert first[1] > 0
    assert abs(first[0] - whole) < first[1]


def test_precision_and_recall_match_torch_fidelity(sets):
    theirs = prc_features_to_metric(
        *(features.double() for features in sets),
        prc_neighborhood=3,
        prc_batch_size=128,
        save_cpu_ram=False,
        verbose=False,
    )
    ours = precision_recall(*sets)
    assert ours == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-6)
    assert 0 < ours.precision < 1
    assert 0 < ours.recall < 1


def test_precision_and_recall_do_not_depend_on_the_chunks(sets, monkeypatch):
    expected = precision_recall(*sets)
    monkeypatch.setattr("invert.metrics.distributions._CHUNK_VALUES", 1000)
    assert precision_recall(*sets) == expected


@given(st.integers(1, 40))
@settings(max_examples=20)
def test_a_generator_that_draws_half_of_a_line_has_full_precision_and_counted_recall(length):
    # Real images are the points 0, 1, ..., 2n; drawn ones are 0, ..., n and reach one step further with one neighbour.
    real = torch.arange(2.0 * length + 1)[:, None]
    drawn = real[: length + 1]
    found = precision_recall(drawn, real, neighbours=1)
    assert found == (1, (length + 2) / (2 * length + 1))


def test_sets_that_are_far_apart_share_nothing(sets):
    assert precision_recall(sets[0] + 1000, sets[1]) == (0, 0)


@pytest.mark.parametrize(
    ("metric", "needed"), [(FID(NETWORK), 25), (KID(NETWORK), 50), (PrecisionRecall(NETWORK), 50)], ids=["fid", "kid", "pr"]
)
def test_three_images_are_refused_with_the_reason(metric, needed):
    metric.update(torch.zeros(100, WIDTH), is_real=True)
    metric.update(torch.zeros(3, WIDTH), is_real=False)
    with pytest.raises(TooFewImages, match=rf"\(toy\): 3 images are too few, it takes at least {needed}: .+"):
        metric.compute()


def test_whoever_insists_gets_a_fid_of_few_images(sets):
    metric = FID(NETWORK, min_images=3)
    metric.update(sets[0][:3], is_real=False)
    metric.update(sets[1], is_real=True)
    assert metric.compute()["fid-toy"] > 0


@pytest.mark.parametrize("function", [frechet_distance, kernel_distance, precision_recall])
def test_features_that_cannot_be_compared_are_refused(function, sets):
    with pytest.raises(TooFewImages, match="0 images"):
        function(sets[0][:0], sets[1])
    with pytest.raises(MetricError, match="NaN"):
        function(sets[0] * float("nan"), sets[1])


@pytest.mark.parametrize("metric", [FID(NETWORK), KID(NETWORK), PrecisionRecall(NETWORK)], ids=["fid", "kid", "pr"])
def test_features_of_another_network_are_refused(metric):
    with pytest.raises(MetricError, match=r"expected features of shape \(n, 24\), got \(4, 7\)"):
        metric.update(torch.zeros(4, 7), is_real=True)
    with pytest.raises(MetricError, match="NaN or infinite"):
        metric.update(torch.full((4, WIDTH), float("inf")), is_real=True)


def test_every_figure_is_described_with_its_features(sets):
    for metric in (FID(NETWORK), KID(NETWORK), PrecisionRecall(NETWORK)):
        for is_real, features in zip((False, True), sets, strict=True):
            metric.update(features, is_real)
        figures = metric.compute()
        for description in metric.descriptions:
            assert description.low <= figures[description.key] <= description.high
            assert description.name.endswith("(toy)")
            assert description.backbone == "first pixels"

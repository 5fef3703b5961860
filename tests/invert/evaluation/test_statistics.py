from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from invert.evaluation.statistics import estimate, interval, resampled_means


def test_intervals_have_the_width_of_normal_theory():
    values = np.random.default_rng(0).normal(3, 2, (1, 400))
    (found,) = estimate(values, resampled_means(values))
    half = 1.96 * values.std() / 400**0.5
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_draws_are_the_same_for_every_column_and_seed():
    values = np.random.default_rng(0).random((2, 50))
    drawn = resampled_means(values, seed=3)
    assert (drawn == resampled_means(values, seed=3)).all()
    assert resampled_means(values[1:], seed=3)[0] == pytest.approx(drawn[1])
    assert (drawn != resampled_means(values, seed=4)).any()


def test_draws_are_the_same_with_any_number_of_threads():
    values = np.random.default_rng(0).random((20, 1000))
    drawn = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            drawn.append(resampled_means(values))
    assert (drawn[0] == drawn[1]).all()


def test_equal_columns_that_are_shifted_differ_by_the_shift_in_every_draw():
    values = np.random.default_rng(0).random((1, 50))
    drawn = resampled_means(np.concatenate([values, values + 1]))
    assert interval(drawn[1] - drawn[0]) == pytest.approx((1, 1))


def test_faces_without_a_value_do_not_count():
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan], [np.nan, 5.0, np.nan]])
    some, none, one = estimate(values, resampled_means(values))
    assert (some.mean, some.count) == (2.0, 2)
    assert (some.low, some.high) == (1.0, 3.0)
    assert np.isnan(none.mean)
    assert none.count == 0
    assert one.mean == 5
    assert np.isnan(one.low)


def test_an_infinite_value_makes_an_infinite_mean():
    values = np.array([[np.inf, 20.0, 21.0, 22.0]])
    (found,) = estimate(values, resampled_means(values))
    assert found.mean == np.inf
    assert found.high == np.inf
    assert found.low >= 20


def test_no_faces_give_no_numbers():
    values = np.empty((2, 0))
    assert [e.count for e in estimate(values, resampled_means(values))] == [0, 0]

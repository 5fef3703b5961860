"""How sure is a mean over faces? Bootstrap intervals, drawn once for all methods and metrics, so that these are paired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

CONFIDENCE = 0.95
MAX_DRAWS = 10_000
MIN_DRAWS = 1_000
DRAWN_FACES = 20_000_000
"""Faces drawn in all: from 2,000 faces on there are fewer draws than ``MAX_DRAWS``, and the intervals are narrow anyway."""
_CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean over faces and its 95 % bootstrap interval; NaN where there is no face, or one alone."""

    mean: float
    low: float
    high: float
    count: int
    """Faces that have a value."""


def resampled_means(values: Float[np.ndarray, "columns faces"], seed: int = 0) -> Float64[np.ndarray, "columns draws"]:
    """Return each column's mean in every draw of as many faces as there are, with replacement.

    Args:
        values: one row a column of the table (method and metric), one entry a face; NaN: no value.
        seed: of the draws; the same faces are drawn for all columns, so that their differences are paired.
    """
    count = values.shape[1]
    draws = int(np.clip(DRAWN_FACES // max(count, 1), MIN_DRAWS, MAX_DRAWS))
    random = np.random.default_rng(seed)
    finite = np.where(np.isfinite(values), values, 0.0).astype(np.float64)
    # How many there are, and how many of them are infinite (PSNR of equal images).
    counted = np.concatenate([~np.isnan(values), np.isinf(values)]).astype(np.float64)
    means = np.full((len(values), draws), np.nan)
    chunk = max(1, _CHUNK_ELEMENTS // max(count, 1))
    for start in range(0, draws if count else 0, chunk):
        # How often each face is drawn says as much as the list of those drawn, and makes means a product of matrices.
        part = slice(start, min(start + chunk, draws))
        size = part.stop - start
        places = random.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(places.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        totals = np.einsum("cf,df->cd", finite, times)  # BLAS has another last digit with another number of threads.
        present, infinite = np.split(counted @ times.T, 2)  # Of whole numbers it has not.
        with np.errstate(invalid="ignore", divide="ignore"):
            means[:, part] = np.where(infinite > 0, np.inf, totals / present)
    return means


def estimate(values: Float[np.ndarray, "columns faces"], drawn: Float64[np.ndarray, "columns draws"]) -> list[Estimate]:
    """Estimate the mean of each column, with percentile intervals.

    Args:
        values: one row a column of the table (method and metric), one entry a face; NaN: no value.
        drawn: what ``resampled_means`` made of them.

    Reference: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    estimates = []
    for column, means in zip(values, drawn, strict=True):
        present = column[~np.isnan(column)]
        mean = float(present.mean()) if present.size else np.nan
        low, high = interval(means) if present.size > 1 else (np.nan, np.nan)
        estimates.append(Estimate(mean, low, high, int(present.size)))
    return estimates


def interval(drawn: Float64[np.ndarray, " draws"]) -> tuple[float, float]:
    """Return where the middle 95 % of some drawn numbers lie; those that are NaN do not count."""
    tail = 50 * (1 - CONFIDENCE)
    present = drawn[~np.isnan(drawn)]
    if not present.size:
        return np.nan, np.nan
    # Not between two draws: one of them may be infinite.
    low, high = np.percentile(present, (tail, 100 - tail), method="nearest")
    return float(low), float(high)

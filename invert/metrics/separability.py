"""How well do hyperplanes in a latent space tell attributes apart? Linear separability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from invert.errors import MetricError, TooFewImages
from invert.metrics.base import Description

KEEP = 0.5
"""Share of the samples that counts."""
KEPT_PER_PARAMETER = 10
"""Samples kept for each parameter of a hyperplane: up to twice as many as parameters, most labellings are separable (Cover
1965), and score 1. With ten times as many, labels at random score 1.93, where 2 is true."""


@dataclass(frozen=True)
class Separability:
    """What a linear classifier of codes leaves open about the attributes of the images."""

    entropies: Mapping[str, float]
    """H(attribute | side of the hyperplane) in nats: 0 if the side tells all, ln 2 if it tells nothing."""
    one_class: tuple[str, ...]
    """Attributes that all samples share: their entropy is 0 without any hyperplane, and flatters the score."""

    @property
    def score(self) -> float:
        """Exponential of the sum over attributes, from 1 on; smaller is better."""
        return math.exp(sum(self.entropies.values()))


def describe(space: str, classifiers: str) -> Description:
    """Say what the score of a space is, by classifiers of a name."""
    name = f"separability {space.upper()} ({classifiers})"
    return Description(f"separability-{space}", name, False, low=1.0, high=float("inf"), backbone=classifiers)


def check_count(name: str, count: int, width: int, keep: float = KEEP) -> None:
    """Refuse so few samples that hyperplanes in a space of this width separate almost any labels of those that are kept.

    Raises:
        TooFewImages: fewer than ten are kept for each parameter of a hyperplane.
    """
    needed = math.ceil(KEPT_PER_PARAMETER * (width + 1) / keep)
    if count < needed:
        reason = (
            f"the hyperplane has {width + 1} parameters, and separates almost any labels of few samples; {keep:.0%} are kept"
            " (papers keep half of 200,000)"
        )
        raise TooFewImages(name, count, needed, reason)


def linear_separability(
    codes: Float[Tensor, "n channels"], scores: Mapping[str, Float[Tensor, " _"]], keep: float = KEEP
) -> Separability:
    """Measure the linear separability of attributes in the space of some codes.

    Args:
        codes: in Z or W, one a sampled image; papers take 200,000.
        scores: of each attribute, by a classifier that saw the images: positive where it is present, farther from 0 where
            the classifier is surer, as log odds are.
        keep: share of the samples that counts, those that the classifier is surest of.

    Raises:
        MetricError: no attributes, numbers that do not fit or are not finite, or ``keep`` out of range.
        TooFewImages: see ``check_count``.

    Reference: Karras et al. 2019, arXiv:1812.04948, section 4.2. As in their code, the hyperplane is judged by the samples
    that it was fitted to; unlike there, codes are standardised first, so that neither their unit nor their origin matters.
    Their classifiers are of the 40 attributes of CelebA; scores of others do not compare.
    """
    if not scores or not 0 < keep <= 1:
        raise MetricError(f"separability: {len(scores)} attributes, keep {keep}: expected one or more, and 0 < keep <= 1")
    x = codes.detach().double().cpu().numpy()
    entropies, one_class = {}, []
    for name, values in scores.items():
        check_scores(name, codes, values)
        score = values.detach().double().cpu().numpy()
        check_count(f"separability of {name!r}", len(x), x.shape[1], keep)
        surest = np.argsort(-np.abs(score), kind="stable")[: round(keep * len(score))]
        labels = score[surest] > 0
        if labels.all() or not labels.any():
            one_class.append(name)
        entropies[name] = conditional_entropy(labels, _sides(x[surest], labels))
    return Separability(entropies, tuple(one_class))


def check_scores(name: str, codes: Tensor, scores: Tensor) -> None:
    """Refuse what are no codes, or not one score for each.

    Raises:
        MetricError: naming what was given.
    """
    if codes.ndim != 2 or scores.shape != codes.shape[:1]:
        raise MetricError(
            f"separability of {name!r}: expected codes of shape (n, channels) and scores of shape (n,), got"
            f" {tuple(codes.shape)} and {tuple(scores.shape)}"
        )
    lost = [int((~torch.isfinite(rows).all(1)).sum()) for rows in (codes, scores[:, None])]
    if any(lost):
        raise MetricError(
            f"separability of {name!r}: {lost[0]} of {len(codes)} codes and {lost[1]} of {len(scores)} scores are not"
            " finite: leave those samples out"
        )


def conditional_entropy(labels: np.ndarray, given: np.ndarray) -> float:
    """Return H(labels | given) of two binary variables in nats, from their joint frequencies."""
    total = 0.0
    for side in (False, True):
        there = labels[given == side]
        share = float(there.mean()) if len(there) else 0.0
        total -= len(there) / len(labels) * sum(p * math.log(p) for p in (share, 1 - share) if p > 0)
    return total


def _sides(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return on which side of the fitted hyperplane each code lies."""
    from sklearn.svm import LinearSVC  # Late: it takes a second.

    if labels.all() or not labels.any():
        return labels
    # The fit holds its weights and its offset small, as if codes were of unit size and about 0.
    spread = x.std(0)
    x = (x - x.mean(0)) / np.where(spread > 0, spread, 1)
    return LinearSVC(dual=False, max_iter=10_000).fit(x, labels).predict(x)

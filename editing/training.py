"""How is a direction learnt? Separate the codes with much of an attribute from those with little, and take the normal.

Reference: Shen et al. 2020, "InterFaceGAN", arXiv:2005.09635, section 3: sort codes by an attribute's score, keep both
tails, fit a linear support vector machine, take its unit normal; section 3.3 for conditional directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from editing.errors import TrainingDataError

MIN_TAIL = 10
"""Fewer codes than this in a tail make neither a direction nor an honest held-out accuracy."""
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
"""Of the SVM, strongest regularisation first; cross-validation chooses."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A direction's unit normal, and how well it tells the attribute on codes that it was not fitted to.

    Attributes:
        normal: points to higher scores.
        accuracy: of the side of the hyperplane, on the held-out part of both tails.
        correlation: of the distance along the normal with the score, on all codes that were not fitted to.
        spread: standard deviation of all codes along the normal, in latent units.
        num_fitted: codes that it was fitted to.
        num_held_out: codes that the accuracy is of.
        penalty: the SVM's, as chosen by cross-validation.
    """

    normal: Float[Tensor, " w_dim"]
    accuracy: float
    correlation: float
    spread: float
    num_fitted: int
    num_held_out: int
    penalty: float


def fit_direction(
    codes: Float[Tensor, "n w_dim"],
    scores: Float[Tensor, " n"],
    fraction: float = 0.3,
    held_out: float = 0.3,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> Fit:
    """Fit the direction along which a score rises.

    Args:
        codes: in W.
        scores: one for each code; the more, the more of the attribute.
        fraction: of the codes in each tail, at most 0.5; what lies between is left out. Where there are two scores only, as
            of labels yes and no, they are the tails, and the larger one is thinned out to the size of the other.
        held_out: part of both tails that is not fitted to but gives the accuracy.
        seed: of the split.
        penalties: to choose from by cross-validation on the fitted part; the first wins a draw.

    Raises:
        TrainingDataError: NaN, too few codes, or no difference in score between the tails.
        ValueError: ``fraction`` or ``held_out`` is out of range.
    """
    from sklearn.model_selection import GridSearchCV  # Late: it takes a second.
    from sklearn.svm import LinearSVC

    if not 0 < fraction <= 0.5 or not 0 < held_out < 1:
        raise ValueError(f"fraction {fraction} must be in (0, 0.5] and held_out {held_out} in (0, 1)")
    _check(codes, scores)
    w = codes.double().cpu().numpy()
    score = scores.double().cpu().numpy()
    rng = np.random.default_rng(seed)
    tails = _tails(score, fraction, rng)
    # One scale for all widths: scaling each width on its own bends the normal towards widths that hardly vary.
    w = (w - w.mean(0)) / max(float(w.std(0).mean()), 1e-12)
    fitted, tested = [], []
    for tail in tails:
        order = rng.permutation(tail)
        cut = max(2, round(held_out * len(order)))
        tested.append(order[:cut])
        fitted.append(order[cut:])
    train, test = np.concatenate(fitted), np.concatenate(tested)
    label_train, label_test = (np.repeat([-1, 1], [len(low), len(high)]) for low, high in (fitted, tested))
    # An intercept that is hardly penalised: the middle between the tails need not be the mean of all codes.
    machine = LinearSVC(intercept_scaling=10, max_iter=20_000, random_state=seed, dual=True)
    search = GridSearchCV(machine, {"C": list(penalties)}, cv=3).fit(w[train], label_train)
    normal = search.best_estimator_.coef_[0]
    normal = normal / np.linalg.norm(normal)
    along = w @ normal
    unseen = np.setdiff1d(np.arange(len(w)), train)
    return Fit(
        normal=torch.from_numpy(normal).float(),
        accuracy=float(search.score(w[test], label_test)),
        correlation=float(np.corrcoef(along[unseen], score[unseen])[0, 1]),
        spread=float((codes.double().cpu() @ torch.from_numpy(normal)).std()),
        num_fitted=len(train),
        num_held_out=len(test),
        penalty=float(search.best_params_["C"]),
    )


def _check(codes: Tensor, scores: Tensor) -> None:
    if len(codes) != len(scores):
        raise ValueError(f"{len(codes)} codes and {len(scores)} scores: expected one score for each code")
    bad = int((~torch.isfinite(scores)).sum())
    if bad:
        raise TrainingDataError(f"{bad} of {len(scores)} scores are NaN or infinite: leave these codes out")
    if not bool(torch.isfinite(codes).all()):
        raise TrainingDataError("some codes are NaN or infinite")


def _tails(score: np.ndarray, fraction: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the lowest and the highest scores; of two labels, as many of each as the rarer one has."""
    values = np.unique(score)
    if len(values) == 2:
        low, high = (rng.permutation(np.flatnonzero(score == value)) for value in values)
        count = min(len(low), len(high))
        if count < MIN_TAIL:
            label = values[int(len(high) == count)]
            raise TrainingDataError(f"too few samples: {count} have the label {label:g}, at least {MIN_TAIL} are needed")
        return low[:count], high[:count]
    count = int(fraction * len(score))
    if count < MIN_TAIL:
        raise TrainingDataError(
            f"too few samples: {len(score)} leave {count} in each tail of {fraction:g}, at least {MIN_TAIL} are needed"
        )
    order = np.argsort(score, kind="stable")
    low, high = order[:count], order[-count:]
    if score[low].max() >= score[high].min():
        raise TrainingDataError(
            f"one class only: both tails of {fraction:g} hold the score {score[low].max():g}; the samples do not differ in"
            " this attribute, or a smaller fraction is needed"
        )
    return low, high


def orthogonalise(
    vector: Float[Tensor, " w_dim"],
    others: Sequence[Float[Tensor, " w_dim"]],
    amounts: Sequence[float] | None = None,
) -> Float[Tensor, " w_dim"]:
    """Make a direction conditional: take out what it shares with others, and return a unit vector.

    Moving along the result leaves the distances to the others' hyperplanes as they are.

    Args:
        vector: the direction.
        others: what it should leave alone.
        amounts: how much of each to take out; None and 1 for all of it. An SVM's normal may share more with another than
            faces show; less than all is then right, and measured faces tell how much.

    Raises:
        TrainingDataError: nothing is left.

    Reference: Shen et al. 2020, arXiv:2005.09635, section 3.3, eq. 8 for one other; the span of several is taken out.
    """
    rest = vector.double()
    if others:
        span = torch.stack([other.double() for other in others], dim=1)
        share = torch.linalg.lstsq(span, rest[:, None]).solution[:, 0]
        rest = rest - span @ (share * torch.tensor(amounts or [1.0] * len(others), dtype=share.dtype))
    norm = rest.norm()
    if not norm > 1e-4 * vector.norm():
        raise TrainingDataError("nothing of the direction is left once the others are taken out: it lies in their span")
    return (rest / norm).to(vector.dtype)

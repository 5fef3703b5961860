"""Do generated images look like real ones, as a set? FID, KID, precision and recall of feature vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from invert.errors import MetricError, TooFewImages
from invert.metrics.base import Description, Features, SetMetric
from invert.metrics.features import FeatureNetwork

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
NEIGHBOURS = 3
MIN_IMAGES = 50
"""Of KID, precision and recall: with fewer, a handful of images decides the figure."""
_CHUNK_VALUES = 2**24
"""Distances held at once: 128 MB."""


class PrecisionAndRecall(NamedTuple):
    """How much of what is drawn looks real, and how much of what is real can be drawn; both 0 to 1."""

    precision: float
    recall: float


class _Given(nn.Module):
    """Stands where torchmetrics expects a network: the features are there already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Features) -> Features:
        return features


def frechet_distance(features: Features, real: Features) -> float:
    """Return the Fréchet distance of two Gaussians fitted to features, from 0 on; smaller is better.

    Raises:
        MetricError: widths differ, or values are not finite.
        TooFewImages: fewer than two vectors in a set.

    Reference: Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    """
    _check("FID", features, real)
    statistics = _statistics(real.shape[1])
    statistics.update(features.double(), real=False)
    statistics.update(real.double(), real=True)
    return _compute(statistics)


def kernel_distance(
    features: Features,
    real: Features,
    subsets: int = KID_SUBSETS,
    subset_size: int = KID_SUBSET_SIZE,
    seed: int = 0,
) -> tuple[float, float | None]:
    """Return the squared maximum mean discrepancy under the kernel (x.y / width + 1)^3: unbiased, around 0 for equal sets.

    Args:
        features: of one set.
        real: of the other.
        subsets: how many random subsets to average over.
        subset_size: vectors in each, or as many as the smaller set has; sets of just that size are compared whole, once.
        seed: of the subsets.

    Returns:
        Mean and standard deviation over the subsets; None for the latter where whole sets are compared.

    Raises:
        MetricError: widths differ, or values are not finite.
        TooFewImages: fewer than two vectors in a set.

    Reference: Binkowski et al. 2018, arXiv:1801.01401, section 4.
    """
    from torchmetrics.image.kid import poly_mmd

    _check("KID", features, real)
    features, real = features.double(), real.double()
    size = min(subset_size, len(features), len(real))
    if size == len(features) == len(real):
        return float(poly_mmd(features, real)), None
    random = torch.Generator().manual_seed(seed)
    pairs = ([torch.randperm(len(rows), generator=random)[:size] for rows in (features, real)] for _ in range(subsets))
    values = torch.stack([poly_mmd(features[some], real[others]) for some, others in pairs])
    return float(values.mean()), float(values.std(correction=0))


def precision_recall(features: Features, real: Features, neighbours: int = NEIGHBOURS) -> PrecisionAndRecall:
    """Return the share of each set that lies inside the other's manifold: balls that reach to the k-th nearest neighbour.

    Args:
        features: of generated images.
        real: of real ones.
        neighbours: k.

    Raises:
        MetricError: widths differ, or values are not finite.
        TooFewImages: no more than ``neighbours`` vectors in a set.

    Reference: Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2.
    """
    _check("precision and recall", features, real, at_least=neighbours + 1)
    features, real = features.double(), real.double()
    return PrecisionAndRecall(_share_inside(features, real, neighbours), _share_inside(real, features, neighbours))


def _share_inside(points: Features, others: Features, neighbours: int) -> float:
    # The nearest neighbour of a vector is itself.
    radii = torch.cat([rows.kthvalue(neighbours + 1, dim=1).values for rows in _distances(others, others)])
    return float(torch.cat([(rows <= radii).any(1) for rows in _distances(points, others)]).double().mean())


def _distances(points: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Give the distances to all others, some rows at a time."""
    rows = max(1, _CHUNK_VALUES // len(others))
    return (torch.cdist(part, others) for part in points.split(rows))


def _statistics(width: int) -> FrechetInceptionDistance:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(_Given(width))


def _compute(statistics: FrechetInceptionDistance) -> float:
    return max(0.0, float(statistics.compute()))  # Rounding can leave equal sets a hair below 0.


class FID(SetMetric):
    """Fréchet distance between sets; keeps means and covariances only, however many images come.

    With no more images than the features are wide, the covariance is singular and the figure far too high: refused.
    """

    def __init__(self, features: FeatureNetwork, min_images: int | None = None) -> None:
        self.descriptions = (_describe("fid", "FID", features, higher_is_better=False, low=0.0, high=float("inf")),)
        self.width, self.min_images = features.width, features.width + 1 if min_images is None else max(2, min_images)
        self.few_reason = f"the covariance of {self.width} features is singular with no more images than that"
        self._statistics = _statistics(features.width)

    def update(self, features: Features, is_real: bool) -> None:
        """Take features of some more images of one of the sets."""
        _check_vectors(self.description.name, features, self.width)
        self._statistics.update(features.cpu().double(), real=is_real)

    def compute(self) -> dict[str, float]:
        """Return the distance, from 0 on; smaller is better."""
        for count in (self._statistics.fake_features_num_samples, self._statistics.real_features_num_samples):
            self.check_count(int(count))
        return {self.description.key: _compute(self._statistics)}


class _KeepsFeatures(SetMetric):
    """A metric that needs all vectors at once."""

    few_reason = "with fewer, a handful of images decides the figure"

    def __init__(self, features: FeatureNetwork, min_images: int = MIN_IMAGES) -> None:
        self.width, self.min_images = features.width, min_images
        self._parts: dict[bool, list[Tensor]] = {False: [], True: []}

    def update(self, features: Features, is_real: bool) -> None:
        """Take features of some more images of one of the sets."""
        _check_vectors(self.description.name, features, self.width)
        self._parts[is_real].append(features.float().cpu())

    def _sets(self) -> tuple[Features, Features]:
        sets = [torch.cat([*self._parts[is_real], torch.empty(0, self.width)]) for is_real in (False, True)]
        for vectors in sets:
            self.check_count(len(vectors))
        return sets[0], sets[1]


class KID(_KeepsFeatures):
    """Kernel distance between sets: unbiased, so that it also serves where there are too few images for FID."""

    def __init__(
        self,
        features: FeatureNetwork,
        min_images: int = MIN_IMAGES,
        subsets: int = KID_SUBSETS,
        subset_size: int = KID_SUBSET_SIZE,
        seed: int = 0,
    ) -> None:
        super().__init__(features, max(2, min_images))
        self.descriptions = (
            _describe("kid", "KID", features, higher_is_better=False, low=-float("inf"), high=float("inf")),
        )
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def compute(self) -> dict[str, float]:
        """Return the distance, around 0 for equal sets and sometimes below; smaller is better. Not times 1000."""
        mean, deviation = kernel_distance(*self._sets(), self.subsets, self.subset_size, self.seed)
        key = self.description.key
        return {key: mean} if deviation is None else {key: mean, f"{key}_std": deviation}


class PrecisionRecall(_KeepsFeatures):
    """Precision and recall of sets, 0 to 1; greater is better.

    Papers compute them on VGG16's features and 50,000 images: figures of another network or number do not compare.
    """

    def __init__(self, features: FeatureNetwork, min_images: int = MIN_IMAGES, neighbours: int = NEIGHBOURS) -> None:
        super().__init__(features, max(neighbours + 1, min_images))
        self.descriptions = tuple(
            _describe(name, name, features, higher_is_better=True, low=0.0, high=1.0) for name in ("precision", "recall")
        )
        self.neighbours = neighbours

    def compute(self) -> dict[str, float]:
        """Return both shares."""
        found = precision_recall(*self._sets(), self.neighbours)
        return {description.key: value for description, value in zip(self.descriptions, found, strict=True)}


def _describe(key: str, name: str, features: FeatureNetwork, higher_is_better: bool, low: float, high: float) -> Description:
    return Description(f"{key}-{features.key}", f"{name} ({features.key})", higher_is_better, low, high, features.name)


def _check(name: str, features: Tensor, real: Tensor, at_least: int = 2) -> None:
    for vectors in (features, real):
        _check_vectors(name, vectors, real.shape[-1])
        if len(vectors) < at_least:
            raise TooFewImages(name, len(vectors), at_least, "the figure is not defined for fewer")


def _check_vectors(name: str, vectors: Tensor, width: int) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise MetricError(f"{name}: expected features of shape (n, {width}), got {tuple(vectors.shape)}")
    if not bool(torch.isfinite(vectors).all()):
        raise MetricError(f"{name}: some features are NaN or infinite")

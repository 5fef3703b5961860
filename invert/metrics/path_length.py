"""How smoothly does a generator's image change along a path between two codes? Perceptual path length in Z and W."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.base import Generator
from generators.errors import UnknownName
from invert.errors import MetricError, TooFewImages
from invert.metrics.base import METRIC_RESOLUTION, Description, Image
from invert.perceptual import Perceptual

SPACES, SAMPLINGS = ("z", "w"), ("full", "end")
Vectors: TypeAlias = Float[Tensor, "*batch channels"]

EPSILON = 1e-4
TRIM = (0.01, 0.99)
"""Quantiles between which lengths count, so that a few broken images do not decide the mean."""


@dataclass(frozen=True)
class PathLengths:
    """Squared perceptual speed along random paths."""

    lengths: Float[Tensor, " n"]
    """One a path, untrimmed, from 0 on."""
    trim: tuple[float, float] = TRIM

    @property
    def kept(self) -> Float[Tensor, " kept"]:
        """Lengths between the two quantiles, bounds included."""
        low = self.lengths.double().quantile(self.trim[0], interpolation="lower")
        high = self.lengths.double().quantile(self.trim[1], interpolation="higher")
        return self.lengths[(self.lengths >= low) & (self.lengths <= high)]

    @property
    def mean(self) -> float:
        """The perceptual path length; smaller is smoother."""
        return float(self.kept.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean; NaN for a single path."""
        return float(self.kept.std() / len(self.kept) ** 0.5) if len(self.kept) > 1 else math.nan


@dataclass(frozen=True)
class PerceptualPathLength:
    """Settings of the measurement; calling it measures a generator.

    Follows NVIDIA's released code: images are pooled to 256 px, central crops of larger ones to proportionately less, and
    1 % of the lengths are left out at both ends. Unlike there the noise inputs are the generator's own constants.

    Reference: Karras et al. 2019, arXiv:1812.04948, section 4.1, eq. 2 and 3; without the crop and at path ends in W it is
    that of Karras et al. 2020, arXiv:1912.04958.
    """

    distance: Perceptual
    """Squared differences of features, as LPIPS; papers take VGG16's."""
    space: str = "w"
    """``w``: linear interpolation of styles; ``z``: spherical interpolation of noise."""
    sampling: str = "end"
    """``full``: anywhere on the path; ``end``: where it begins."""
    crop: bool = False
    """Look at the middle half of the face only: rows from 3/8 to 7/8, columns from 1/4 to 3/4."""
    epsilon: float = EPSILON
    """How far apart the two points on the path are, as share of its length."""

    def __post_init__(self) -> None:
        for what, value, known in (("space", self.space, SPACES), ("sampling", self.sampling, SAMPLINGS)):
            if value not in known:
                raise UnknownName(what, value, known)
        if not self.epsilon > 0:
            raise ValueError(f"epsilon {self.epsilon}: expected a positive number")

    @property
    def description(self) -> Description:
        """What the figure is."""
        key = f"ppl-{self.space}-{self.sampling}" + ("-crop" if self.crop else "")
        name = f"PPL {self.space.upper()} {self.sampling}{', crop' if self.crop else ''} ({self.distance.name})"
        return Description(key, name, higher_is_better=False, low=0.0, high=float("inf"), backbone=self.distance.name)

    @torch.no_grad()
    def __call__(
        self,
        generator: Generator,
        num_samples: int,
        batch_size: int = 4,
        seed: int = 0,
        on_batch: Callable[[int], None] | None = None,
    ) -> PathLengths:
        """Measure random paths.

        Args:
            generator: whose images.
            num_samples: paths; papers take 100,000, with 1,000 the standard error is a few percent.
            batch_size: paths drawn at once, two images each; the lengths do not depend on it.
            seed: of the paths.
            on_batch: told how many paths are done.

        Raises:
            TooFewImages: no samples.
            MetricError: the distance cannot compare images of this size, or not all lengths are finite.
        """
        if num_samples < 1:
            raise TooFewImages(self.description.name, num_samples, 1, "it is a mean over paths")
        lengths: list[Tensor] = []
        for z, t in _paths(generator.z_dim, num_samples, batch_size, seed):
            near, far = (point.to(generator.w_avg) for point in self._points(generator, z, t))
            styles = generator.mapping(torch.cat([near, far])) if self.space == "z" else torch.cat([near, far])
            first, second = self._see(generator.synthesis(styles)).chunk(2)
            lengths.append((self._compare(first, second) / self.epsilon**2).cpu())
            if on_batch is not None:
                on_batch(sum(len(part) for part in lengths))
        found = torch.cat(lengths)
        if lost := int((~torch.isfinite(found)).sum()):
            raise MetricError(
                f"{self.description.name}: {lost} of {num_samples} paths have no length: the generator draws values that are"
                " NaN or infinite"
            )
        return PathLengths(found)

    def _points(
        self, generator: Generator, z: Float[Tensor, "batch 2 z_dim"], t: Float[Tensor, " batch"]
    ) -> tuple[Tensor, Tensor]:
        """Return two points of each path, in double precision: what single precision leaves of 1e-4 is too coarse."""
        t = t if self.sampling == "full" else torch.zeros_like(t)
        if self.space == "z":
            return slerp(z[:, 0], z[:, 1], t), slerp(z[:, 0], z[:, 1], t + self.epsilon)
        ends = generator.mapping(z.to(generator.w_avg).flatten(0, 1)).cpu().double()  # Not every device has doubles.
        begin, end = ends.unflatten(0, z.shape[:2]).unbind(1)
        near = begin.lerp(end, t[:, None, None])
        return near, near + self.epsilon * (end - begin)

    def _compare(self, first: Image, second: Image) -> Float[Tensor, " batch"]:
        try:
            return self.distance(first, second)
        except RuntimeError as error:  # Of LPIPS's networks, whose pooling leaves nothing of small images.
            height, width = first.shape[2:]
            raise MetricError(
                f"{self.description.name}: {self.distance.name} cannot compare images of {width}x{height} px: {error}"
            ) from error

    def _see(self, image: Tensor) -> Tensor:
        side = image.shape[-1]
        if self.crop:
            image = image[:, :, side * 3 // 8 : side * 7 // 8, side // 4 : side * 3 // 4]
        factor = side // METRIC_RESOLUTION
        return F.avg_pool2d(image, factor) if factor > 1 else image


def perceptual_path_length(
    generator: Generator,
    distance: Perceptual,
    num_samples: int,
    space: str = "w",
    sampling: str = "end",
    crop: bool = False,
    epsilon: float = EPSILON,
    seed: int = 0,
) -> float:
    """Return the perceptual path length of a generator, from 0 on; smaller is smoother. See ``PerceptualPathLength``."""
    return PerceptualPathLength(distance, space, sampling, crop, epsilon)(generator, num_samples, seed=seed).mean


def slerp(a: Vectors, b: Vectors, t: Float[Tensor, " *batch"]) -> Vectors:
    """Return unit vectors on the great circle from a's direction (t = 0) to b's (t = 1).

    Reference: Shoemake 1985, "Animating rotation with quaternion curves".
    """
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    cosine = (a * b).sum(-1, keepdim=True)
    across = F.normalize(b - cosine * a, dim=-1)
    angle = t[..., None] * torch.atan2((b - cosine * a).norm(dim=-1, keepdim=True), cosine)
    return a * angle.cos() + across * angle.sin()


def _paths(
    z_dim: int, num_samples: int, batch_size: int, seed: int
) -> Iterator[tuple[Float[Tensor, "batch 2 z_dim"], Float[Tensor, " batch"]]]:
    """Draw ends and positions path by path, so that they do not depend on the batches."""
    random = torch.Generator().manual_seed(seed)
    for begin in range(0, num_samples, batch_size):
        drawn = [
            (torch.randn(2, z_dim, generator=random), torch.rand((), generator=random))
            for _ in range(min(batch_size, num_samples - begin))
        ]
        yield torch.stack([z for z, _ in drawn]).double(), torch.stack([t for _, t in drawn]).double()

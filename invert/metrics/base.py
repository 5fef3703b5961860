"""What is a metric? Something with a name, a direction, a range and a backbone; per image, or of two sets of images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from invert.errors import MetricError, TooFewImages
from invert.inversion import resize

METRIC_RESOLUTION = 256

Image: TypeAlias = Float[Tensor, "batch 3 height width"]
PerImage: TypeAlias = Float[Tensor, " batch"]
Features: TypeAlias = Float[Tensor, "_ channels"]
"""One row an image; the number has no name, since two sets may differ in it."""


@dataclass(frozen=True)
class Description:
    """What a reader must know to make sense of a figure."""

    key: str
    """What a user types, and the name of the column in CSV and JSON: ``lpips-alex``."""
    name: str
    """What stands above the column: ``LPIPS-AlexNet``; never without the backbone."""
    higher_is_better: bool
    low: float
    """Smallest possible value."""
    high: float
    """Largest possible value; may be infinite."""
    backbone: str = "none"
    """Network whose features are compared, with the data that it was trained on; begins with ``none`` if there is none."""
    weights: str = ""
    """SHA-256 of that network's weights."""

    @property
    def arrow(self) -> str:
        """Point to where better is."""
        return "↑" if self.higher_is_better else "↓"


@dataclass(frozen=True)
class PairMetric:
    """Compares every image with its own target, one value an image; keeps no state."""

    description: Description
    measure: Callable[[Image, Image], PerImage]
    """The metric itself, on images of one size in [-1, 1]."""
    resolution: int | None = METRIC_RESOLUTION
    """Both images are brought to this side first, unless they are of one size and smaller; None: they are never."""

    @property
    def key(self) -> str:
        """What a user types."""
        return self.description.key

    @property
    def name(self) -> str:
        """What to call it wherever its values are printed."""
        return self.description.name

    @torch.no_grad()
    def per_image(
        self, image: Float[Tensor, "batch 3 h w"], target: Float[Tensor, "batch 3 h2 w2"]
    ) -> Float[Tensor, " batch"]:
        """Compare images with their targets, both in [-1, 1]; one value an image, on the device of the images.

        Raises:
            MetricError: the images do not fit each other, or the metric.
        """
        check_images(image, target)
        if self.resolution is not None and (image.shape != target.shape or max(image.shape[2:]) > self.resolution):
            check_aspects(self.name, image, target)
            image, target = resize(image, self.resolution), resize(target, self.resolution)
        elif image.shape != target.shape:
            raise MetricError(f"{self.name}: images of {_size(image)} and {_size(target)} px: expected equal sizes")
        return self.measure(image, target)

    __call__ = per_image


class SetMetric(ABC):
    """Compares a set of images with a set of real ones by their features; values only of both sets together.

    Features are given in any order and number; the result depends on the two sets alone, up to rounding.
    """

    descriptions: tuple[Description, ...]
    """One for each figure, the main one first."""
    min_images: int
    """Fewer than this in either set are refused."""
    few_reason: str = "the figure is not defined for fewer"
    """Why they are."""

    @property
    def description(self) -> Description:
        """Of the main figure."""
        return self.descriptions[0]

    def check_count(self, count: int) -> None:
        """Refuse a set of too few images.

        Raises:
            TooFewImages: fewer than ``min_images``.
        """
        if count < self.min_images:
            raise TooFewImages(self.description.name, count, self.min_images, self.few_reason)

    @abstractmethod
    def update(self, features: Features, is_real: bool) -> None:
        """Take features of some more images of one of the sets.

        Raises:
            MetricError: features of another width, or not finite.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the figures by their keys; one that has no description, as KID's spread, belongs to the one before.

        Raises:
            TooFewImages: naming how many there are, how many it takes and why.
        """


def check_image(image: Tensor, which: str = "image") -> None:
    """Refuse what is no batch of images.

    Raises:
        MetricError: naming what was given.
    """
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise MetricError(
            f"{which}: expected floats of shape (batch, 3, height, width) in [-1, 1], got {image.dtype} of shape"
            f" {tuple(image.shape)}"
        )


def check_images(image: Tensor, target: Tensor) -> None:
    """Refuse what are no two batches of images.

    Raises:
        MetricError: naming what was given.
    """
    for which, value in (("image", image), ("target", target)):
        check_image(value, which)
    if image.shape[0] != target.shape[0]:
        raise MetricError(f"{image.shape[0]} images, but {target.shape[0]} targets: expected one target an image")


def check_aspects(name: str, image: Tensor, target: Tensor) -> None:
    """Refuse images that would be squashed differently on their way to one size; a side may be a pixel off, by rounding.

    Raises:
        MetricError: their aspect ratios differ.
    """
    (height, width), (height2, width2) = image.shape[2:], target.shape[2:]
    if abs(width * height2 - width2 * height) > max(height, width, height2, width2):
        raise MetricError(f"{name}: images of {_size(image)} and {_size(target)} px: expected equal aspect ratios")


def _size(image: Tensor) -> str:
    return f"{image.shape[3]}x{image.shape[2]}"


def psnr_of(mse: Tensor, dynamic_range: float = 2.0) -> Tensor:
    """Turn mean squared errors into decibels below the dynamic range; infinite where there is no error."""
    return 20 * math.log10(dynamic_range) - 10 * mse.log10()

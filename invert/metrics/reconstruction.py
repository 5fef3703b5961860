"""How close is an inversion? The two figures of every face's report."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from invert.inversion import resize
from invert.metrics.base import METRIC_RESOLUTION, check_aspects
from invert.perceptual import Perceptual


@dataclass(frozen=True)
class Reconstruction:
    """How close images are to their originals, at 256 px in [-1, 1]."""

    mse: Float[Tensor, " batch"]
    """Mean squared difference, 0 to 4, smaller is better."""
    perceptual: Float[Tensor, " batch"]
    """Perceptual distance from 0 on, smaller is better."""
    perceptual_name: str
    """What measured it, with its backbone."""


@torch.no_grad()
def reconstruction(
    image: Float[Tensor, "batch 3 h w"], original: Float[Tensor, "batch 3 h2 w2"], perceptual: Perceptual
) -> Reconstruction:
    """Compare drawn images with their originals, both in [-1, 1], pooled to 256 px.

    Raises:
        MetricError: their aspect ratios differ.
    """
    check_aspects("reconstruction", image, original)
    a, b = resize(image, METRIC_RESOLUTION), resize(original, METRIC_RESOLUTION)
    return Reconstruction((a - b).square().mean((1, 2, 3)), perceptual(a, b), perceptual.name)

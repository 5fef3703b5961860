"""How far apart do two faces look? LPIPS where its backbone can be had; else a distance that never borrows that name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from encoders.stylemap import StyleMapEncoder
from pretrained.errors import DownloadFailed

logger = logging.getLogger(__name__)

Image = Float[Tensor, "batch 3 height width"]


@dataclass(frozen=True)
class Perceptual:
    """A named distance of two batches of images in [-1, 1]: 0 for equal ones, larger is worse, one value an image."""

    name: str
    """What to call it wherever its values are printed; says the backbone."""
    distance: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, a: Image, b: Image) -> Float[Tensor, " batch"]:
        """Measure; gradients flow to both images."""
        return self.distance(a, b).flatten()


def load_perceptual(device: str | torch.device = "cpu", notify: Callable[[str], None] = logger.warning) -> Perceptual:
    """Return LPIPS with SqueezeNet (Zhang et al. 2018, arXiv:1801.03924), or what can take its place offline.

    Args:
        device: where to measure.
        notify: told why LPIPS is not there, when it is not.
    """
    from pretrained.loading import load_encoder
    from pretrained.lpips import load_lpips_squeeze

    try:
        return Perceptual("LPIPS-SqueezeNet", load_lpips_squeeze().to(device))
    except DownloadFailed as error:
        notify(f"{error}. Until then a distance in the features of the StyleMap encoder takes its place; it is not LPIPS")
        encoder = load_encoder("stylemap", device)
        assert isinstance(encoder, StyleMapEncoder)
        return encoder_distance(encoder)


def load_training_perceptual(
    device: str | torch.device = "cpu", notify: Callable[[str], None] = logger.warning
) -> Perceptual:
    """Return LPIPS, or where it cannot be had no perceptual distance at all: an encoder must not be judged by itself."""
    from pretrained.lpips import load_lpips_squeeze

    try:
        return Perceptual("LPIPS-SqueezeNet", load_lpips_squeeze().to(device))
    except DownloadFailed as error:
        notify(f"{error}. The perceptual term is off")
        return Perceptual("off", lambda a, b: torch.zeros(a.shape[0], device=a.device))


def encoder_distance(encoder: StyleMapEncoder) -> Perceptual:
    """Make a perceptual distance of an encoder's backbone: LPIPS's formula without learned weights per channel."""

    def distance(a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros(a.shape[0], device=a.device)
        for x, y in zip(encoder.features(a), encoder.features(b), strict=True):
            difference = F.normalize(x, dim=1, eps=1e-8) - F.normalize(y, dim=1, eps=1e-8)
            total = total + difference.square().sum(1).mean((1, 2))
        return total / 3

    return Perceptual("StyleMap-encoder features", distance)

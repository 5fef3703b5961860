"""What do real photos do that sampled faces don't? Misalignment, light, blur: applied to the encoder's input alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Image = Float[Tensor, "batch 3 height width"]


def random_flip(image: Image, generator: torch.Generator) -> Image:
    """Mirror half of the images left to right."""
    flip = (torch.rand(image.shape[0], 1, 1, 1, generator=generator) < 0.5).to(image.device)
    return torch.where(flip, image.flip(3), image)


def misalign(
    image: Image, generator: torch.Generator, shift: float = 0.02, scale: float = 0.03, roll_deg: float = 2.0
) -> Image:
    """Move, resize and turn each image a little, as another landmark detector would crop it.

    Args:
        image: in [-1, 1].
        generator: source of randomness.
        shift: largest move as a share of the side.
        scale: largest change of size.
        roll_deg: largest turn.
    """
    batch = image.shape[0]
    if batch == 0:  # PyTorch's grids refuse to be empty.
        return image
    noise = torch.rand(batch, 4, generator=generator) * 2 - 1
    angle, size = noise[:, 0] * math.radians(roll_deg), 1 + noise[:, 1] * scale
    cos, sin = angle.cos() * size, angle.sin() * size
    theta = torch.stack(
        [torch.stack([cos, -sin, noise[:, 2] * 2 * shift], 1), torch.stack([sin, cos, noise[:, 3] * 2 * shift], 1)], 1
    )
    grid = F.affine_grid(theta, list(image.shape), align_corners=False).to(image)
    return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def relight(image: Image, generator: torch.Generator, amount: float = 0.15) -> Image:
    """Change brightness, contrast and the balance of colours of each image."""
    batch = image.shape[0]
    gain = 1 + amount * (torch.rand(batch, 3, 1, 1, generator=generator) * 2 - 1) * 0.5
    gain = gain * (1 + amount * (torch.rand(batch, 1, 1, 1, generator=generator) * 2 - 1))
    offset = amount * (torch.rand(batch, 1, 1, 1, generator=generator) * 2 - 1)
    return (image * gain.to(image) + offset.to(image)).clamp(-1, 1)


def soften(image: Image, generator: torch.Generator) -> Image:
    """Lower the resolution of half of the images by up to 2.5 times, as small or compressed photos have it."""
    out = image.clone()
    for i in torch.nonzero(torch.rand(image.shape[0], generator=generator) < 0.5).flatten().tolist():
        side = int(image.shape[3] / (1 + 1.5 * float(torch.rand((), generator=generator))))
        small = F.interpolate(image[i : i + 1], (side, side), mode="area")
        out[i] = F.interpolate(small, image.shape[2:], mode="bilinear", align_corners=False)[0]
    return out

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


def patch(
    image: Image, other: Float[Tensor, "others 3 height width"], generator: torch.Generator, chance: float = 0.3
) -> Image:
    """Give some of the images, on one side of a random line, what other images have there.

    A small set of portraits has few backgrounds, and hair that goes with the face: together they have many more.

    Args:
        image: in [-1, 1].
        other: what is taken from, of the same size; as many as there are, over and over.
        generator: source of randomness.
        chance: share of the images that are changed.
    """
    batch = image.shape[0]
    chosen = torch.rand(batch, 1, 1, 1, generator=generator) < chance
    mask = one_side(batch, image.shape[2], generator, sharpest=100.0) * chosen
    if not batch or not other.shape[0]:
        return image
    return image.lerp(other[torch.arange(batch) % other.shape[0]], mask.to(image))


def one_side(
    batch: int, side: int, generator: torch.Generator, sharpest: float = 8.0
) -> Float[Tensor, "batch 1 {side} {side}"]:
    """Return masks that rise from 0 to 1 across random lines near the centre.

    Args:
        batch: how many.
        side: in pixels.
        generator: source of randomness.
        sharpest: largest slope of the edges, per half side; the least is 8.
    """
    angle, offset, slope = torch.rand(3, batch, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    turn = 2 * math.pi * angle
    return torch.sigmoid(8 * (sharpest / 8) ** slope * (turn.cos() * x + turn.sin() * y + offset - 0.5))[:, None]


def soften(image: Image, generator: torch.Generator, chance: float = 0.25) -> Image:
    """Lower the resolution of some of the images by up to 2.5 times, as small or compressed photos have it."""
    out = image.clone()
    for i in torch.nonzero(torch.rand(image.shape[0], generator=generator) < chance).flatten().tolist():
        side = int(image.shape[3] / (1 + 1.5 * float(torch.rand((), generator=generator))))
        small = F.interpolate(image[i : i + 1], (side, side), mode="area")
        out[i] = F.interpolate(small, image.shape[2:], mode="bilinear", align_corners=False)[0]
    return out


def compress(image: Image, generator: torch.Generator, strongest: float = 0.5) -> Image:
    """Lose what JPEG loses, in half of the images: the DCT of 8x8 blocks of luma and chroma is rounded to a table.

    Args:
        image: in [-1, 1], sides a multiple of 8; others are left as they are.
        generator: source of randomness.
        strongest: quantisation steps at worst, as multiples of the standard's tables (0.5 is about quality 75, 1 is 50).
    """
    if image.shape[2] % 8 or image.shape[3] % 8 or image.shape[0] == 0:
        return image
    chosen = torch.rand(image.shape[0], 1, 1, 1, 1, 1, generator=generator) < 0.5
    strength = (0.1 + (strongest - 0.1) * torch.rand(image.shape[0], 1, 1, 1, 1, 1, generator=generator)).to(image)
    to_luma, dct = _LUMA.to(image), _dct_matrix().to(image)
    ycc = torch.einsum("kc,bchw->bkhw", to_luma, image * 127.5)
    blocks = ycc.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # (batch, 3, rows, columns, 8, 8)
    table = torch.stack([_LUMA_STEPS, _CHROMA_STEPS, _CHROMA_STEPS]).to(image)[:, None, None] * strength
    coefficients = ((dct @ blocks @ dct.T) / table).round() * table
    ycc = (dct.T @ coefficients @ dct).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    lossy = torch.einsum("ck,bkhw->bchw", torch.linalg.inv(_LUMA).to(image), ycc) / 127.5
    return torch.where(chosen[..., 0, 0].to(image.device), lossy.clamp(-1, 1), image)


_LUMA = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""RGB to YCbCr (JFIF 1.02)."""
_LUMA_STEPS = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).float()  # fmt: skip
_CHROMA_STEPS = torch.full((8, 8), 99.0)
_CHROMA_STEPS[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])
"""Quantisation tables (ITU-T T.81, annex K.1)."""


def _dct_matrix() -> Float[Tensor, "8 8"]:
    """Return the orthonormal DCT-II of 8 values."""
    k = torch.arange(8.0)
    matrix = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) / 2
    matrix[0] /= math.sqrt(2)
    return matrix

"""Does a generator's image move as its input is moved? Equivariance of StyleGAN3 to translation and rotation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.base import Generator
from generators.errors import UnknownName
from invert.errors import MetricError, TooFewImages
from invert.metrics.base import Description, Image, psnr_of

Kernel: TypeAlias = Float[Tensor, "phases 1 taps taps"]

MAX_SHIFT = 0.125
"""Of translations to every side, as share of the image."""
LOBES = 3
"""Of the Lanczos windows."""
REACH = 2 * LOBES
"""Of the rotating filter, in pixels: two windows, one in the axes of either image."""
PHASES = 4
"""Positions between two pixels at which the rotated image is filtered; linear interpolation between those."""
_SINC_REACH = 64
"""In pixels: where the sinc functions are cut off before they are windowed."""


@dataclass(frozen=True)
class Equivariance:
    """Squared differences between moved images and images of moved inputs, where both are known."""

    errors: Float[Tensor, " n"]
    """Sum over the pixels that count, one a sample."""
    counts: Float[Tensor, " n"]
    """How many values those are; none where all pixels are nearer to the edge than the filter reaches."""
    side: int
    """Of the images, in pixels."""

    @property
    def decibels(self) -> float:
        """Peak signal-to-noise ratio over all samples, for a range of 2; greater is better, infinite if nothing differs.

        Raises:
            MetricError: the images are so small that no pixel of any sample counts.
        """
        if not self.counts.any():
            raise MetricError(f"images of {self.side} px are too small for the filter, which reaches {REACH} px around")
        return float(psnr_of(self.errors.sum() / self.counts.sum()))

    @property
    def per_sample(self) -> Float[Tensor, " counted"]:
        """The same of each sample in which some pixel counts."""
        counted = self.counts > 0
        return psnr_of(self.errors[counted] / self.counts[counted])


DESCRIPTIONS = {
    key: Description(key, f"{name} [dB]", higher_is_better=True, low=0.0, high=float("inf"))
    for key, name in (("eq-t", "EQ-T"), ("eq-t-frac", "EQ-T fractional"), ("eq-r", "EQ-R"))
}
"""EQ-T moves by whole pixels, EQ-T fractional by any amount, EQ-R rotates by any angle."""


@torch.no_grad()
def equivariance(
    generator: Generator,
    num_samples: int,
    kinds: Sequence[str] = tuple(DESCRIPTIONS),
    seed: int = 0,
    on_sample: Callable[[int], None] | None = None,
) -> dict[str, Equivariance]:
    """Measure how well a generator's images move with ``synthesis.input.transform``.

    Args:
        generator: a StyleGAN3, or one with the same buffer: (3, 3), from output to input coordinates in sides of the image.
        num_samples: images; papers take 50,000.
        kinds: keys of ``DESCRIPTIONS``.
        seed: of images and movements.
        on_sample: told how many samples are done.

    Raises:
        MetricError: the generator's input cannot be moved.
        UnknownName: there is no such kind.
        TooFewImages: no samples.

    Reference: Karras et al. 2021, arXiv:2106.12423, eq. 3 and appendix E; filters and bounds are those of E.2 and E.3.
    """
    unknown = [kind for kind in kinds if kind not in DESCRIPTIONS]
    if unknown:
        raise UnknownName("equivariance", unknown[0], DESCRIPTIONS)
    if num_samples < 1:
        raise TooFewImages("equivariance", num_samples, 1, "it is a mean over images")
    random = torch.Generator().manual_seed(seed)
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {kind: [] for kind in kinds}
    with _movable(generator) as draw:
        for done in range(1, num_samples + 1):
            styles = generator.mapping(torch.randn(1, generator.z_dim, generator=random).to(generator.w_avg))
            original = draw(styles, torch.eye(3))
            for kind in kinds:
                moved, expected, mask = _move(kind, original, lambda matrix: draw(styles, matrix), random)  # noqa: B023
                error = ((moved - expected).square() * mask).cpu().double().sum()
                rows[kind].append((error, mask.sum().cpu().double() * original.shape[1]))
            if on_sample is not None:
                on_sample(done)
    side = original.shape[-1]
    return {
        kind: Equivariance(torch.stack([error for error, _ in found]), torch.stack([count for _, count in found]), side)
        for kind, found in rows.items()
    }


@contextmanager
def _movable(generator: Generator) -> Iterator[Callable[[Tensor, Tensor], Image]]:
    """Give a function that draws styles under a transform; put the generator's own back at the end."""
    transform = getattr(getattr(generator.synthesis, "input", None), "transform", None)
    if not isinstance(transform, Tensor):
        raise MetricError(
            f"equivariance of {generator.identity}: this {type(generator).__name__} has no input that can be moved: it is"
            " defined for StyleGAN3"
        )
    own = transform.clone()

    def draw(styles: Tensor, matrix: Tensor) -> Tensor:
        transform.copy_(matrix)
        return generator.synthesis(styles)

    try:
        yield draw
    finally:
        transform.copy_(own)


def _move(
    kind: str, original: Image, draw: Callable[[Tensor], Image], random: torch.Generator
) -> tuple[Image, Image, Float[Tensor, "height width"]]:
    """Move the input and the image by a random amount; return both images, and where they can be compared."""
    if kind == "eq-r":
        angle = (torch.rand((), generator=random).item() * 2 - 1) * math.pi
        moved = draw(_embed(_rotation(-angle)))
        filtered, known = pseudo_rotate(moved, angle)
        expected, mask = rotate(original, angle)
        return filtered, expected, mask * known
    side = original.shape[-1]
    shift = (torch.rand(2, generator=random) * 2 - 1) * MAX_SHIFT * side
    if kind == "eq-t":
        shift = shift.round()
    matrix = torch.eye(3)
    matrix[:2, 2] = -shift / side
    expected, mask = translate(original, float(shift[0]), float(shift[1]))
    return draw(matrix), expected, mask


def translate(image: Image, right: float, down: float) -> tuple[Image, Float[Tensor, "height width"]]:
    """Move images by some pixels, interpolated by Lanczos windows of three lobes.

    Returns:
        The moved images, and a mask: 1 where all that the filter reaches is inside, else 0.

    Reference: Karras et al. 2021, arXiv:2106.12423, appendix E.1 and E.2.
    """
    mask = torch.ones(image.shape[2:], device=image.device)
    for dim, shift in ((3, right), (2, down)):
        whole = math.floor(shift)
        taps = torch.arange(1 - LOBES, LOBES + 1) if shift != whole else torch.zeros(1, dtype=torch.int64)
        weights = _lanczos(taps - (shift - whole))
        weights = weights / weights.sum()
        offsets = [int(tap) + whole for tap in taps]
        # What is rolled in from the other side lies outside the mask.
        image = torch.stack([w * image.roll(o, dim) for w, o in zip(weights.tolist(), offsets, strict=True)]).sum(0)
        size = image.shape[dim]
        position = torch.arange(size, device=image.device)
        inside = (position >= max(offsets)) & (position < size + min(offsets))
        mask = mask * (inside if dim == 3 else inside[:, None])
    return image, mask


def rotate(image: Image, angle: float) -> tuple[Image, Float[Tensor, "height width"]]:
    """Rotate square images about their middle, keeping only frequencies that the grids of both images can hold.

    Args:
        image: to rotate.
        angle: in radians, anticlockwise as seen.

    Returns:
        The rotated images, and a mask: 1 where all that the filter reaches is inside, else 0.

    Reference: Karras et al. 2021, arXiv:2106.12423, appendix E.3, operator R.
    """
    batch, channels, size, _ = image.shape
    kernel = _kernel(angle, PHASES).to(image)
    planes = F.pad(image.reshape(-1, 1, size, size), (REACH - 1, REACH, REACH - 1, REACH))
    fine = F.pixel_shuffle(F.conv2d(planes, kernel), PHASES)
    # Where in the original, in pixels from its first, each pixel of the result comes from.
    steps = torch.arange(size, device=image.device, dtype=image.dtype) - (size - 1) / 2
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1) @ _rotation(-angle).T.to(image) + (size - 1) / 2
    relative = 2 * PHASES * grid / (size * PHASES - 1) - 1
    rotated = F.grid_sample(fine, relative.expand(len(fine), -1, -1, -1), mode="bilinear", align_corners=True)
    mask = ((grid >= REACH) & (grid <= size - 1 - REACH)).all(-1).to(image.dtype)
    return rotated.reshape(batch, channels, size, size), mask


def pseudo_rotate(image: Image, angle: float) -> tuple[Image, Float[Tensor, "height width"]]:
    """Take the frequencies away that ``rotate`` takes from an image that ends up at this angle, but rotate nothing.

    Reference: Karras et al. 2021, arXiv:2106.12423, appendix E.3, operator R*.
    """
    size = image.shape[-1]
    planes = F.pad(image.reshape(-1, 1, size, size), (REACH - 1, REACH, REACH - 1, REACH))
    filtered = F.conv2d(planes, _kernel(-angle, 1).to(image)).reshape(image.shape)
    mask = torch.zeros(size, size, dtype=image.dtype, device=image.device)
    mask[REACH - 1 : 1 - REACH, REACH - 1 : 1 - REACH] = 1
    return filtered, mask


@lru_cache(maxsize=2)
def _kernel(angle: float, phases: int) -> Kernel:
    """Build the filter that keeps what two grids can hold, one turned by an angle, at positions between pixels.

    The ideal filter is the convolution of both grids' sinc functions, its window that of both grids' Lanczos windows.
    Element [p, 0, r, c] weighs the pixel that lies ``REACH - 1 - r + row(p) / phases`` above the position.
    """
    count = 2 * _SINC_REACH * phases
    steps = torch.arange(count).sub(count // 2).roll(count // 2).double() / phases
    own = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    turned = own @ _rotation(angle).double().T

    def both(function: Callable[[Tensor], Tensor]) -> Tensor:
        spectra = [torch.fft.fft2(function(axes).prod(-1)) for axes in (own, turned)]
        return torch.fft.ifft2(spectra[0] * spectra[1]).real

    table = both(torch.sinc) * both(lambda x: torch.sinc(x / LOBES) * (x.abs() < LOBES))
    # Rows from REACH - 1 pixels above the position to REACH below: index phases * (REACH - 1 - r) + row(p), modulo count.
    index = phases * (REACH - 1 - torch.arange(2 * REACH)) + torch.arange(phases)[:, None]
    taps = table[index[:, None, :, None], index[None, :, None, :]].reshape(phases**2, 1, 2 * REACH, 2 * REACH)
    return (taps / taps.sum((2, 3), keepdim=True)).float()


def _lanczos(x: Tensor) -> Tensor:
    return torch.sinc(x) * torch.sinc(x / LOBES)


def _rotation(angle: float) -> Float[Tensor, "2 2"]:
    """Return the matrix that turns (right, down) coordinates anticlockwise, as seen."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, s], [-s, c]])


def _embed(matrix: Float[Tensor, "2 2"]) -> Float[Tensor, "3 3"]:
    whole = torch.eye(3)
    whole[:2, :2] = matrix
    return whole

"""How close are two images, pixel by pixel and window by window? MSE, PSNR, SSIM and MS-SSIM, one value an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from invert.errors import MetricError
from invert.metrics.base import Description, Image, PairMetric, PerImage, check_images, psnr_of

DYNAMIC_RANGE = 2.0
"""Images lie in [-1, 1]. PSNR does not depend on the choice, MSE does: that of images in [0, 1] is a quarter."""
UNIT = "none, images in [0, 1]"
"""What SSIM and MS-SSIM are computed on: they compare luminances by their ratio, which an offset changes."""
MS_SSIM_MIN_SIDE = 176
"""Five scales halve the side four times, and a window of 11 pixels must still fit: 11 times 16."""


def mse(image: Image, target: Image) -> PerImage:
    """Return the mean squared difference, 0 to 4 for images in [-1, 1]; smaller is better.

    Raises:
        MetricError: no images, or of different sizes.
    """
    check_sizes(image, target)
    return (image - target).square().mean((1, 2, 3))


def psnr(image: Image, target: Image) -> PerImage:
    """Return the peak signal-to-noise ratio in dB; greater is better, infinite for equal images.

    The peak is the whole range of 2, so that the figure is that of images in [0, 1] or [0, 255].

    Raises:
        MetricError: no images, or of different sizes.
    """
    return psnr_of(mse(image, target), DYNAMIC_RANGE)


def ssim(image: Image, target: Image) -> PerImage:
    """Return the structural similarity, -1 to 1; greater is better, 1 for equal images.

    It is that of the images in [0, 1] or [0, 255], as everybody's: in [-1, 1] its luminance term would be another. Gaussian
    windows of 11 pixels with sigma 1.5, k1 0.01, k2 0.03, each colour by itself, borders mirrored.

    Raises:
        MetricError: no images, of different sizes, or smaller than the window.

    Reference: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", eq. 13.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_sizes(image, target, at_least=11)
    return _one_an_image(structural_similarity_index_measure, image, target)


def ms_ssim(image: Image, target: Image) -> PerImage:
    """Return the structural similarity over five scales, 0 to 1; greater is better, 1 for equal images.

    It is that of the images in [0, 1], as of ``ssim``.

    Raises:
        MetricError: no images, of different sizes, or with a side below 176 pixels.

    Reference: Wang et al. 2003, "Multiscale structural similarity for image quality assessment", eq. 7 and its weights.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    check_sizes(image, target, at_least=MS_SSIM_MIN_SIDE)
    return _one_an_image(multiscale_structural_similarity_index_measure, image, target, normalize="relu")


MSE = PairMetric(Description("mse", "MSE", higher_is_better=False, low=0.0, high=DYNAMIC_RANGE**2), mse)
PSNR = PairMetric(Description("psnr", "PSNR [dB]", higher_is_better=True, low=0.0, high=float("inf")), psnr)
SSIM = PairMetric(Description("ssim", "SSIM", higher_is_better=True, low=-1.0, high=1.0, backbone=UNIT), ssim)
MS_SSIM = PairMetric(Description("ms-ssim", "MS-SSIM", higher_is_better=True, low=0.0, high=1.0, backbone=UNIT), ms_ssim)


def _one_an_image(function: Any, image: Image, target: Image, **options: Any) -> PerImage:
    """Call torchmetrics image by image: its gradients and values for one image do not depend on the others'."""
    values = [
        function((a[None] + 1) / 2, (b[None] + 1) / 2, data_range=1.0, **options).reshape(())
        for a, b in zip(image, target, strict=True)
    ]
    return torch.stack(values) if values else image.new_zeros(0)


def check_sizes(image: Tensor, target: Tensor, at_least: int = 1) -> None:
    """Refuse what are no two batches of images of one size, ``at_least`` so large.

    Raises:
        MetricError: naming what was given.
    """
    check_images(image, target)
    if image.shape != target.shape:
        raise MetricError(f"images of shape {tuple(image.shape)} and {tuple(target.shape)}: expected equal ones")
    if min(image.shape[2:]) < at_least:
        raise MetricError(
            f"images of {image.shape[3]}x{image.shape[2]} px: expected at least {at_least} px a side for the windows"
        )

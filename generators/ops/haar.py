"""How do four half-size sub-bands become one image? The inverse Haar transform that MobileStyleGAN up-samples with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def inverse_haar(bands: Float[Tensor, "batch four_c h w"]) -> Float[Tensor, "batch c double_h double_w"]:
    """Join sub-bands to an image of twice the size and a quarter of the channels.

    The first C channels are the low-pass band; the other 3 C hold, channel by channel, the vertical, horizontal and
    diagonal details (lh, hl, hh). Differentiable any number of times.

    Reference: Belousov 2021, arXiv:2104.04767, section 3.2.
    """
    batch, four_c, height, width = bands.shape
    channels = four_c // 4
    low = bands[:, :channels]
    lh, hl, hh = bands[:, channels:].reshape(batch, channels, 3, height, width).unbind(2)
    sums, differences = low + lh, low - lh
    details, cross = hl + hh, hl - hh
    top = torch.stack([sums + details, sums - details], dim=-1)
    bottom = torch.stack([differences + cross, differences - cross], dim=-1)
    return torch.stack([top, bottom], dim=3).reshape(batch, channels, 2 * height, 2 * width) * 0.5

"""What size does an encoder see a face in? Photos and drawings come to it alike, in training and in use."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def resize(
    image: Float[Tensor, "batch 3 height width"], resolution: int, growing: Literal["bilinear", "bicubic"] = "bilinear"
) -> Float[Tensor, "batch 3 {resolution} {resolution}"]:
    """Pool an image down, or interpolate it up, to a resolution; nothing happens where it has it.

    Others than squares are squashed, and shrink if their longer side does.
    What encoders see grows bilinearly; bicubic values beyond [-1, 1] are cut off.
    """
    if image.shape[-1] == resolution == image.shape[-2]:
        return image
    if max(image.shape[-2:]) > resolution:
        return F.interpolate(image, (resolution, resolution), mode="area")
    grown = F.interpolate(image, (resolution, resolution), mode=growing, align_corners=False)
    return grown.clamp(-1, 1) if growing == "bicubic" else grown

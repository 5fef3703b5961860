"""How does a style reach a feature map of another size? Resizing style maps, and multiplying with them."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.ops.layout import layout_of


def resize_style(style: Float[Tensor, "batch c h w"], height: int, width: int) -> Float[Tensor, "batch c _ _"]:
    """Resize a style map to a feature map: bilinear when it grows, area mean when it shrinks, 1x1 left to broadcasting."""
    if style.shape[2:] == (1, 1) or style.shape[2:] == (height, width):
        return style
    if style.shape[2] > height or style.shape[3] > width:
        return F.interpolate(style, (height, width), mode="area")
    return F.interpolate(style, (height, width), mode="bilinear", align_corners=False)


def modulate(
    x: Float[Tensor, "batch c height width"], style: Float[Tensor, "batch c h w"]
) -> Float[Tensor, "batch c height width"]:
    """Scale features by a style, pixel by pixel: ``s * x`` in Honda et al. eq. (2); a 1x1 style scales whole channels."""
    # In the order of x, because a product of two orders is slow, and so is resizing with channels apart.
    style = style.to(x.dtype).contiguous(memory_format=layout_of(x))
    return x * resize_style(style, x.shape[2], x.shape[3])

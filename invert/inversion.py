"""What is an inversion? The record that encoders and the projector return, whatever found the code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.base import Generator
from generators.latent import Latent


@dataclass(frozen=True)
class Inversion:
    """Codes, what the generator draws from them, and how they were found."""

    latent: Latent
    """One code an image."""
    image: Float[Tensor, "batch 3 height width"]
    """Drawn from the codes at the generator's full resolution, nominally in [-1, 1]."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row an optimiser step, means over the batch; empty for an encoder alone."""
    interrupted: bool = False
    """The user stopped the optimiser; the code is the best one until then."""
    generator: Generator | None = None
    """The generator tuned to these faces, which their edits have to be drawn with; None: it is the one it was."""


@runtime_checkable
class Inverter(Protocol):
    """Anything that finds codes: an encoder, the projector, or one after the other."""

    def __call__(self, image: Float[Tensor, "batch 3 height width"]) -> Inversion:
        """Invert aligned faces in [-1, 1]."""


def resize(image: Float[Tensor, "batch 3 h w"], resolution: int) -> Float[Tensor, "batch 3 r r"]:
    """Bring square images to the side that networks and metrics expect: area mean when shrinking, bicubic when growing.

    Others are squashed, and shrink if their longer side does.
    """
    if image.shape[-1] == resolution == image.shape[-2]:
        return image
    if max(image.shape[-2:]) > resolution:
        return F.interpolate(image, (resolution, resolution), mode="area")
    return F.interpolate(image, (resolution, resolution), mode="bicubic", align_corners=False).clamp(-1, 1)

"""What is an inversion? The record that encoders and the projector return, whatever found the code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from encoders.resize import resize as resize_for_encoder
from generators.base import Generator
from generators.latent import Latent
from invert.errors import ImageError


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
        """Invert aligned faces in [-1, 1].

        Raises:
            ImageError: see ``check_faces``.
        """


WIDEST, SHARE_BEYOND = 1.5, 0.01
"""Largest value of a face, and the share that may lie beyond: drawn ones have highlights of up to 2.9 in 0.02 %."""


def check_faces(image: Tensor) -> None:
    """Refuse what inverters would take without a word: a single image, or values 0 to 255.

    Raises:
        ImageError: the shape is not (n, 3, h, w), or more than a few values lie outside of [-1, 1] or are NaN.
    """
    if image.ndim != 4 or image.shape[1] != 3 or not image.numel():
        advice = "face.image[None] makes one of a single face" if image.ndim == 3 else "to_tensor(photo) gives (3, h, w)"
        raise ImageError(f"an image of shape {tuple(image.shape)}: expected a batch (n, 3, h, w): {advice}")
    low, high = (float(value) for value in image.aminmax())
    if low >= -WIDEST and high <= WIDEST:
        return
    if not float((image.abs() <= WIDEST).float().mean()) >= 1 - SHARE_BEYOND:
        raise ImageError(
            f"an image with values from {low:.4g} to {high:.4g}: expected [-1, 1]: to_tensor(photo) converts from 0 to 255"
        )


def resize(image: Float[Tensor, "batch 3 h w"], resolution: int) -> Float[Tensor, "batch 3 r r"]:
    """Bring square images to the side that losses and metrics expect: area mean when shrinking, bicubic when growing.

    Others are squashed, and shrink if their longer side does. What encoders see grows otherwise (``encoders.resize``).
    """
    return resize_for_encoder(image, resolution, growing="bicubic")

"""Which ways are there to find a code? An encoder, the projector, or an encoder polished by the projector: one call each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from encoders.stylemap import StyleMapEncoder
from generators.base import Generator
from generators.errors import LatentMismatch, UnknownName
from generators.latent import Latent
from invert.inversion import Inversion, Inverter, resize
from invert.perceptual import Perceptual, load_perceptual
from invert.projector import Projector
from pretrained.loading import load_encoder
from pretrained.shipped import encoder_names

PROJECTOR = "projector"
REFINE_LEARNING_RATE = 0.05
"""Of the projector's steps after an encoder."""


@dataclass(frozen=True)
class EncoderInverter:
    """Invert by one call of an encoder, and polish by some projector steps if there are any."""

    encoder: StyleMapEncoder
    generator: Generator
    refiner: Projector | None = None

    def __call__(self, image: Float[Tensor, "batch 3 height width"]) -> Inversion:
        """Invert aligned faces in [-1, 1] of any size."""
        latent = self.encode(image)
        if self.refiner is not None and self.refiner.steps:
            return self.refiner(image, start=latent)
        with torch.no_grad():
            return Inversion(latent, self.generator.synthesis(latent))

    @torch.no_grad()
    def encode(self, image: Float[Tensor, "batch 3 height width"]) -> Latent:
        """Return the encoder's codes alone: nothing is polished or drawn."""
        return self.encoder(resize(image, self.encoder.input_resolution))


def method_names() -> list[str]:
    """Return what ``--method`` takes."""
    return [*encoder_names(), PROJECTOR]


def load_inverter(
    method: str,
    generator: Generator,
    *,
    space: str = "w_plus",
    steps: int = 100,
    refine: int = 0,
    perceptual: Perceptual | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> Inverter:
    """Make an inverter.

    Args:
        method: ``projector``, or an encoder by name or file.
        generator: whose codes to find; the inverter works on its device.
        space: of the projector; an encoder has its own.
        steps: of the projector.
        refine: projector steps after an encoder.
        perceptual: distance that the projector minimises; None loads LPIPS where it is needed.
        on_step: told every step of the projector and its loss terms.

    Raises:
        UnknownName: no such method or space.
        LatentMismatch: the encoder belongs to another generator.
    """
    device = generator.w_avg.device

    def projector(count: int, learning_rate: float) -> Projector:
        distance = perceptual if perceptual is not None else load_perceptual(device)
        return Projector(generator, distance, space, count, learning_rate, on_step=on_step)

    if method == PROJECTOR:
        return projector(steps, Projector.learning_rate)
    if method not in encoder_names() and not method.endswith(".safetensors"):
        raise UnknownName("method", method, method_names())
    encoder = load_encoder(method, device)
    if not encoder.identity.fits(generator.identity) or encoder.num_ws != generator.num_ws:
        raise LatentMismatch(
            f"the encoder {method!r} was trained for the generator {encoder.identity}, not for {generator.identity}:"
            f" use --method {PROJECTOR}, or train one with 'stylegan-invert train'"
        )
    if not refine:
        return EncoderInverter(encoder, generator)
    refiner = replace(projector(refine, REFINE_LEARNING_RATE), space=encoder.space)
    return EncoderInverter(encoder, generator, refiner)


def invert(
    image: Float[Tensor, "batch 3 height width"], generator: Generator, method: str = "stylemap", **options: object
) -> Inversion:
    """Find the codes of aligned faces in [-1, 1]; for many batches, keep what ``load_inverter`` returns.

    Args:
        image: a batch, as ``align`` cuts it (``face.image[None]``).
        generator: from ``load_generator``.
        method: see ``load_inverter``.
        **options: see ``load_inverter``.
    """
    return load_inverter(method, generator, **options)(image.to(generator.w_avg.device))  # type: ignore[arg-type]

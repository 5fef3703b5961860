"""How well does an edit survive the way through the image? Latent editing consistency (LEC).

A face's code is edited, drawn and inverted again; undoing the edit should then lead back to the first code:

    LEC_f(x) = d(E(x), f^-1(E(G(f(E(x))))))                              Tov et al. 2021, arXiv:2102.02766

with encoder E, generator G and edit f, in latent units, from 0 on, lower is better. For a w_plus, d is the Euclidean norm of
the difference over layers and channels together, as e4e's released ``metrics/LEC.py`` has it. For a stylemap, Honda et al.
("Image Editing and Evaluation by GAN Inversion using StyleMap") sum the squared differences of each pixel over its channels
and take the average, the minimum or the maximum over the pixels of the map; here these are summed over the layers, and the
root is taken. So all three forms of a code whose maps are 1x1 are its vector form.

The released script averages batches, drops the last one if it is not full, and drops the lowest and highest percent of the
batch means; here every face counts once, and whoever averages decides. Both measure codes that contain ``w_avg``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from editing.directions import Edit, Strength
from generators.errors import LatentMismatch
from generators.latent import Latent, as_stylemaps

Encode: TypeAlias = Callable[[Float[Tensor, "batch 3 height width"]], Latent]
Generate: TypeAlias = Callable[[Latent], Float[Tensor, "batch 3 height width"]]

AnyLatent: TypeAlias = Float[Tensor, "_ _ _"] | Sequence[Float[Tensor, "_ _ _ _"]]
"""A latent that may fit no other: whether it does is what is checked."""


class LatentDistance(NamedTuple):
    """The three forms, one value a code; equal to each other where all maps are 1x1 (``vector`` form)."""

    avg: Float[Tensor, " batch"]
    min: Float[Tensor, " batch"]
    max: Float[Tensor, " batch"]


def latent_distance(a: AnyLatent, b: AnyLatent) -> LatentDistance:
    """Measure how far codes lie apart: norms over layers and channels, with the average, minimum or maximum over pixels.

    Raises:
        LatentMismatch: the latents differ in batch, layers, widths or map sizes.
    """
    maps_a, maps_b = as_stylemaps(a), as_stylemaps(b)
    shapes_a, shapes_b = ([tuple(style.shape) for style in maps] for maps in (maps_a, maps_b))
    if shapes_a != shapes_b or not maps_a:
        raise LatentMismatch(f"expected two latents of the same batch, layers and sizes, got {shapes_a} and {shapes_b}")
    # In float32 codes of float64 that lie close together would be equal.
    wide = [[style.to(torch.promote_types(style.dtype, torch.float32)) for style in maps] for maps in (maps_a, maps_b)]
    layers = [(x - y).square().sum(1).flatten(1) for x, y in zip(*wide, strict=True)]
    forms = [[pixels.mean(1), pixels.amin(1), pixels.amax(1)] for pixels in layers]
    return LatentDistance(*(torch.stack(form).sum(0).sqrt().float() for form in zip(*forms, strict=True)))


class LEC:
    """Latent editing consistency of an encoder and a generator; calling it measures a batch of aligned faces.

    Nothing is kept between calls; in latent units, from 0 on, lower is better.
    """

    def __init__(self, encode: Encode, generate: Generate) -> None:
        """Take an encoder, images in [-1, 1] to codes with ``w_avg``, and a generator, codes to images in [-1, 1]."""
        self.encode, self.generate = encode, generate

    @torch.no_grad()
    def __call__(
        self, image: Float[Tensor, "batch 3 height width"], edit: Edit, strength: Strength, inverse: Edit | None = None
    ) -> LatentDistance:
        """Measure one edit on faces; ``codes`` goes on from their codes where several edits are measured."""
        return self.codes(self.encode(image), edit, strength, inverse)

    @torch.no_grad()
    def codes(self, latent: Latent, edit: Edit, strength: Strength, inverse: Edit | None = None) -> LatentDistance:
        """Measure one edit on codes of the encoder.

        Args:
            latent: what ``encode`` gave.
            edit: what is done to the codes; linear, or with its own ``inverse``.
            strength: of the edit.
            inverse: undoes ``edit`` at the same strength; None takes the edit itself at the negative strength.

        Raises:
            LatentMismatch: the encoder gives another code for the drawn image, in space or size.
            EditError: the strength is NaN or infinite.
        """
        again = self.encode(self.generate(edit(latent, strength)))
        back = edit(again, -strength) if inverse is None else inverse(again, strength)
        return latent_distance(latent, back)

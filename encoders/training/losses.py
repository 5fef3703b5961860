"""What is an encoder taught by? The terms that are taken on its codes, and the weights of all terms.

Every term on codes is in units of W's variance, so that weights mean the same for every generator: an encoder that always
says ``w_avg`` has a code error of about 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from generators.latent import AnyBatch, Latent, as_stylemaps
from generators.ops.modulate import resize_style


@dataclass(frozen=True)
class Losses:
    """Weights of the terms; a term of weight 0 is not computed where that saves time."""

    l2: float = 1.0
    """Mean squared difference of the images in [-1, 1]."""
    lpips: float = 0.8
    """Perceptual distance (pSp's weight)."""
    identity: float = 0.1
    """1 - cosine of face embeddings (pSp's weight); off where no face network is given."""
    code: float = 0.1
    """Squared error of the codes of sampled faces."""
    consistency: float = 0.0
    """Squared error of codes that the encoder made itself and that were edited: what LEC measures."""
    edits: float = 0.0
    """Squared error of known codes along the edits that are taught, in units of their full strength; off where none are."""
    w_norm: float = 0.003
    """Squared distance of real faces' codes from w_avg."""
    delta: float = 0.0
    """Squared length of the deltas, which are norms in Tov et al. 2021: see ``delta_norm``."""
    roughness: float = 0.01
    """Variance of each map around its mean vector: maps vary only where that pays."""
    adversarial: float = 0.0
    """Non-saturating loss of the latent discriminator, on every pixel of every map (Tov et al. 2021, section 4.2)."""


def code_error(latent: Latent, codes: AnyBatch) -> Float[Tensor, " batch"]:
    """Compare codes layer by layer; targets are resized to the maps they are compared with.

    Args:
        latent: an encoder's codes.
        codes: what they should be; a w_plus is the target of every pixel.

    Returns:
        Per face: the mean over layers of the mean squared difference.
    """
    errors = []
    for ours, target in zip(as_stylemaps(latent), as_stylemaps(codes), strict=True):
        errors.append((ours - resize_style(target, *ours.shape[2:])).square().mean((1, 2, 3)))
    return torch.stack(errors).mean(0)


def edit_error(latent: Latent, codes: AnyBatch, edits: Float[Tensor, "edits num_ws w_dim"]) -> Float[Tensor, " batch"]:
    """Compare codes by how far they went along each edit, in units of its full strength.

    Edits are long in directions in which W is narrow (an age of three standard deviations is 17 of W's own in that
    direction), so the error over all channels hardly tells whether an encoder saw them.

    Args:
        latent: an encoder's codes.
        codes: what they should be.
        edits: what each adds to a code at full strength.

    Returns:
        Per face: the mean over edits of the squared difference; 1 where each is missed by its whole length.
    """
    ours, target = (torch.stack([m.mean((2, 3)) for m in as_stylemaps(code)], 1) for code in (latent, codes))
    along = torch.einsum("bld,eld->be", ours - target, edits) / edits.square().sum((1, 2))
    return along.square().mean(1)


def delta_norm(latent: Latent) -> Float[Tensor, " batch"]:
    """Return per face how far the layers' mean styles lie from the first one's: a mean of squares over layers and channels.

    Tov et al. 2021, arXiv:2102.02766, eq. 3, and their code take the sum over layers of the lengths |w_i - w_0| instead. A
    mean of squares has the unit of the other terms on codes (the trainer divides all by W's variance), whatever the number
    of layers and the width of W; it bears on long deltas most, where a length pulls at each alike, down to 0. The shipped
    encoders learnt with it. So the published weight, 2e-4, does not carry over: n deltas of one length d, for which theirs
    is n d, give d^2 / w_dim.
    """
    first, *others = (style_map.mean((2, 3)) for style_map in as_stylemaps(latent))
    return torch.stack([(other - first).square().mean(1) for other in others]).mean(0)


def roughness(latent: Latent) -> Float[Tensor, " batch"]:
    """Return per face the variance of the maps around their mean vectors, a mean over layers."""
    maps: Sequence[Tensor] = as_stylemaps(latent)
    return torch.stack([(m - m.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)) for m in maps]).mean(0)

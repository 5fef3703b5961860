"""What is a latent code? The two forms that every generator's ``synthesis`` takes, and how one becomes the other.

``w_plus`` is one tensor (batch, num_ws, w_dim). A *stylemap* is a tuple with one map (batch, w_dim, h, w) per layer, where
each layer may have a size of its own (Honda et al.; Hong et al. 2020, arXiv:2006.05394). A w_plus is a stylemap whose maps
are all 1x1, so code that is written for maps serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from generators.errors import LatentMismatch

WPlus: TypeAlias = Float[Tensor, "batch num_ws w_dim"]
# The sizes have no names, since names would bind: every layer may have a size of its own.
StyleMap: TypeAlias = Float[Tensor, "batch w_dim _ _"]
StyleMaps: TypeAlias = Sequence[StyleMap]
Latent: TypeAlias = WPlus | StyleMaps
AnyBatch: TypeAlias = Float[Tensor, "_ num_ws w_dim"] | Sequence[Float[Tensor, "_ w_dim _ _"]]
"""A latent whose batch differs from that of the others in a signature."""

COARSE, MIDDLE, FINE = slice(0, 4), slice(4, 8), slice(8, None)
"""Layers of 4-8 px, 16-32 px and from 64 px on, in every StyleGAN2 (Karras et al. 2019, arXiv:1812.04948, section 3)."""


def space_of(latent: Latent) -> str:
    """Name the space of a latent: ``"w_plus"`` for one tensor, ``"stylemap"`` for a sequence of maps."""
    return "w_plus" if isinstance(latent, Tensor) else "stylemap"


def as_stylemaps(latent: Latent) -> tuple[StyleMap, ...]:
    """View a latent as one map per layer; a w_plus becomes 1x1 maps."""
    if isinstance(latent, Tensor):
        return tuple(w[:, :, None, None] for w in latent.unbind(1))
    return tuple(latent)


def map_layers(latent: Latent, function: Callable[[int, StyleMap], StyleMap]) -> Latent:
    """Apply ``function(layer, map)`` to every layer and return a latent of the same space.

    Raises:
        LatentMismatch: the latent is a w_plus, and the function returned a map that is larger than 1x1.
    """
    maps = tuple(function(layer, style_map) for layer, style_map in enumerate(as_stylemaps(latent)))
    if isinstance(latent, Tensor):
        for layer, style_map in enumerate(maps):
            if style_map.shape[2:] != (1, 1):
                raise LatentMismatch(
                    f"layer {layer}: a w_plus has no place for a map of {tuple(style_map.shape[2:])}; "
                    "give as_stylemaps(latent) instead"
                )
        return torch.stack([style_map[:, :, 0, 0] for style_map in maps], dim=1)
    return maps


def batch_size(latent: Latent) -> int:
    """Return how many codes a latent holds."""
    return latent.shape[0] if isinstance(latent, Tensor) else latent[0].shape[0]


def select(latent: Latent, index: int | slice) -> AnyBatch:
    """Return some codes of the batch, still as a batch.

    Raises:
        IndexError: there is no code of that number.
    """
    if isinstance(index, int) and not -batch_size(latent) <= index < batch_size(latent):
        raise IndexError(f"no code number {index}: the latent holds {batch_size(latent)} codes")
    rows = slice(index, index + 1 or None) if isinstance(index, int) else index
    return latent[rows] if isinstance(latent, Tensor) else tuple(style_map[rows] for style_map in latent)


def concatenate(latents: Sequence[AnyBatch]) -> AnyBatch:
    """Join batches of codes of one space and shape.

    Raises:
        LatentMismatch: no latents, or latents of different spaces, layers or sizes.
    """
    spaces = {space_of(latent) for latent in latents}
    if len(spaces) != 1:
        raise LatentMismatch(f"cannot concatenate latents of the spaces {sorted(spaces) or 'none'}: give one space only")
    shapes = {tuple(tuple(style_map.shape[1:]) for style_map in as_stylemaps(latent)) for latent in latents}
    if len(shapes) != 1:
        raise LatentMismatch("cannot concatenate latents whose layers, widths or map sizes differ: resize them first")
    if spaces == {"w_plus"}:
        return torch.cat([latent for latent in latents if isinstance(latent, Tensor)])
    return tuple(torch.cat(layer) for layer in zip(*(as_stylemaps(latent) for latent in latents), strict=True))


def check_latent(latent: Latent, num_ws: int, w_dim: int) -> tuple[StyleMap, ...]:
    """Check a latent against a generator's layers and width, and return it as maps.

    Raises:
        LatentMismatch: the number of layers, the width or the batch sizes do not fit.
    """
    if isinstance(latent, Tensor) and latent.ndim != 3:
        if tuple(latent.shape) == (num_ws, w_dim):
            advice = f"add the batch with latent[None]; if these are {num_ws} codes of W, repeat each"
        else:
            advice = "repeat a W code"
        raise LatentMismatch(
            f"expected a w_plus of shape (batch, {num_ws}, {w_dim}) or {num_ws} stylemaps, got a tensor of shape "
            f"{tuple(latent.shape)}; {advice} with w[:, None].repeat(1, {num_ws}, 1)"
        )
    maps = as_stylemaps(latent)
    if len(maps) != num_ws:
        raise LatentMismatch(f"this generator takes {num_ws} styles, the latent has {len(maps)}")
    for layer, style_map in enumerate(maps):
        batch = maps[0].shape[0]
        if style_map.ndim != 4 or style_map.shape[:2] != (batch, w_dim) or 0 in style_map.shape[2:]:
            raise LatentMismatch(
                f"layer {layer}: expected a map of shape ({batch}, {w_dim}, h, w), got {tuple(style_map.shape)}"
            )
    return maps

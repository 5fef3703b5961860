"""Which latents can be joined? Those of one generator's layers and widths, in batches that go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from generators.errors import LatentMismatch
from generators.latent import Latent, StyleMap, as_stylemaps, batch_size, space_of

AnyLatent: TypeAlias = Float[Tensor, "..."] | Sequence[Float[Tensor, "..."]]
"""A latent that has yet to be held against others: nothing is said of its sizes."""


def match_latents(latents: Sequence[AnyLatent]) -> list[tuple[StyleMap, ...]]:
    """View latents as maps of one batch; a single code is repeated for all of the others' batch.

    Raises:
        LatentMismatch: they differ in layers, widths or batches, or one is no latent.
    """
    for latent in latents:
        if not len(latent) or (isinstance(latent, Tensor) and latent.ndim != 3):
            shape = tuple(latent.shape) if isinstance(latent, Tensor) else "no maps"
            raise LatentMismatch(
                f"expected a w_plus of shape (batch, num_ws, w_dim) or a stylemap, got {shape}:"
                " z has to be mapped first, a W code to be repeated for every layer; latent[None] makes a batch of one code"
            )
    layers = {len(as_stylemaps(latent)) for latent in latents}
    if len(layers) != 1:
        raise LatentMismatch(f"latents of {_either(layers)} layers cannot be joined: they belong to different generators")
    widths = {style_map.shape[1] for latent in latents for style_map in as_stylemaps(latent)}
    if len(widths) != 1:
        raise LatentMismatch(f"styles {_either(widths)} wide cannot be joined: they belong to different generators")
    sizes = {batch_size(latent) for latent in latents}
    if len(sizes - {1}) > 1:
        raise LatentMismatch(f"batches of {_either(sizes)} codes cannot be joined: expected equal ones, or a single code")
    return [tuple(style_map.expand(max(sizes), -1, -1, -1) for style_map in as_stylemaps(latent)) for latent in latents]


def _either(numbers: set[int]) -> str:
    return " and ".join(map(str, sorted(numbers)))


def like_sources(latents: Sequence[AnyLatent], maps: Sequence[StyleMap]) -> Latent:
    """Give maps the space of the latents that they were made of: a w_plus if all of these are, and no map is larger."""
    are_vectors = all(style_map.shape[2:] == (1, 1) for style_map in maps)
    if are_vectors and all(space_of(latent) == "w_plus" for latent in latents):
        return torch.stack([style_map[:, :, 0, 0] for style_map in maps], dim=1)
    return tuple(maps)

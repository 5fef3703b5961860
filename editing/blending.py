"""How does one part of a face change and the rest stay? Codes put together under masks, as styles or as features.

Blending *styles* gives a latent: a stylemap that holds one code's style where the mask is 1 and another's where it is 0. It
can be kept, edited and drawn by every generator that takes stylemaps. Styles of coarse layers act on few, large pixels, so
what they change spreads: local edits leave them alone, and are weaker for it.

Blending *features* gives an image: both codes are drawn as far as one resolution, put together there under the mask, and
drawn on from there. The coarse layers then change in full, and nothing spreads further than the layers above look.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from editing.directions import Edit, Strength
from editing.errors import EditError
from editing.layers import parse_layers
from editing.masks import AnyMask, check_mask, dilate, resize_mask
from editing.matching import AnyLatent, like_sources, match_latents
from generators.base import Generator
from generators.errors import LatentMismatch
from generators.latent import Latent, batch_size
from generators.ops import resize_style

AnyMap: TypeAlias = Float[Tensor, "_ _ _ _"]

MAX_MAP = 64
"""Side of the largest style maps that are made: 8 MB a layer of width 512, and 16 px of a 1024 px image a pixel."""
LOCAL_FROM = 32
"""Resolution from which styles may change in a part of the face only: below, one pixel is as large as an eye or a mouth."""
FEATURES_AT = 64
"""Resolution at which features are put together."""


def map_sizes(
    generator: Generator, layers: Collection[int] | str | None = None, lowest: int = 0, largest: int = MAX_MAP
) -> tuple[int, ...]:
    """Return the side of the style map that each layer is blended at; 0 for a layer that stays as it is.

    Args:
        generator: whose layers.
        layers: that may change: numbers, or text that ``parse_layers`` reads; None for all.
        lowest: resolution from which on they may; ``LOCAL_FROM`` keeps edits where the mask is. The first layer of a
            resolution starts from features of half of it, and so belongs to what is below.
        largest: side of the largest maps; finer layers get these enlarged, for memory's sake.

    Raises:
        LatentMismatch: the generator takes no stylemaps.
        EditError: no layer is left.
        UnknownName: the text names no layers.
    """
    resolutions = generator.style_resolutions
    if not resolutions:
        raise LatentMismatch(
            "this generator cannot be edited in places: a StyleGAN3's features move under the pixels, so that no pixel of a"
            " map belongs to a place; use a StyleGAN2, or StyleGAN1"
        )
    if layers is None or isinstance(layers, str):
        layers = parse_layers("all" if layers is None else layers, len(resolutions))
    starts = (resolutions[0], *resolutions)
    sizes = [min(r, largest) if i in layers and starts[i] >= lowest else 0 for i, r in enumerate(resolutions)]
    if not any(sizes):
        raise EditError(f"layers {sorted(layers)}: none of them works at {lowest} px or more, so that nothing would change")
    return tuple(sizes)


def blend(latents: Sequence[AnyLatent], masks: Sequence[AnyMask], sizes: Sequence[int]) -> Latent:
    """Put styles together under masks: over the first latent each further one is laid where its mask is set.

    Where a mask, brought to a layer's size, is 0 or 1, the style there is one of the sources', bit for bit; between them it
    is interpolated. Layers in which the sources agree keep their size. Whole maps are interpolated by ``lerp``.

    Args:
        latents: two or more; batches of one size, or single codes.
        masks: one for each latent but the first, of any size; of one batch, or a single one.
        sizes: of ``map_sizes``, one a layer; a source whose map is larger sets the size.

    Returns:
        A stylemap; a w_plus only where all sources are and all layers agree.

    Raises:
        LatentMismatch: the latents do not go together.
        EditError: a mask is empty or holds numbers outside [0, 1]; the numbers of latents, masks or sizes do not fit.
    """
    maps = match_latents(latents)
    if len(masks) != len(latents) - 1:
        raise EditError(f"{len(latents)} latents and {len(masks)} masks: expected one mask for each latent but the first")
    if len(sizes) != len(maps[0]):
        raise EditError(f"{len(sizes)} map sizes for {len(maps[0])} layers: expected one a layer")
    for mask in masks:
        check_mask(mask)
    blended = []
    for layer, size in enumerate(sizes):
        style_map, *over = (source[layer] for source in maps)
        for other, mask in zip(over, masks, strict=True):
            if size and not _agree(style_map, other):
                style_map = _lay_over(style_map, other, mask, size)
        blended.append(style_map)
    return like_sources(latents, blended)


def _agree(a: AnyMap, b: AnyMap) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _lay_over(below: AnyMap, above: AnyMap, mask: AnyMask, size: int) -> AnyMap:
    start, end = _of_one_size(below, above, size)
    share = resize_mask(mask.to(start), start.shape[2], start.shape[3])
    # Equal to an end where the share is 0 or 1, unlike a sum of both.
    return torch.lerp(*torch.broadcast_tensors(start, end, share))


def _of_one_size(a: AnyMap, b: AnyMap, smallest: int = 1) -> tuple[AnyMap, AnyMap]:
    height, width = (max(smallest, a.shape[axis], b.shape[axis]) for axis in (2, 3))
    first, second = torch.broadcast_tensors(*(resize_style(style_map, height, width) for style_map in (a, b)))
    return (first, second) if smallest == 1 else (first.expand(-1, -1, height, width), second.expand(-1, -1, height, width))


@dataclass(frozen=True, eq=False)
class LocalEdit:
    """An edit that works where a mask is set, in styles; elsewhere the latent stays as it is, bit for bit.

    Attributes:
        edit: such as a direction.
        mask: where.
        sizes: of ``map_sizes``; with ``lowest=LOCAL_FROM`` little of it spreads beyond the mask.
    """

    edit: Edit
    mask: AnyMask
    sizes: tuple[int, ...]

    def __call__(self, latent: Latent, strength: Strength) -> Latent:
        """Edit a latent under the mask; at strength 0 it comes back as it was.

        Raises:
            LatentMismatch: the edit does not fit the latent.
            EditError: the strength is NaN or infinite, or the mask is none.
        """
        return blend([latent, self.edit(latent, strength)], [self.mask], self.sizes)


def draw_blended(
    generator: Generator, below: AnyLatent, above: AnyLatent, mask: AnyMask, resolution: int = FEATURES_AT
) -> Float[Tensor, "batch 3 height width"]:
    """Draw one code with another in the place of it where a mask is set, put together as features.

    Both are drawn up to a resolution; there the features of ``above`` take the place of the others under the mask. Layers
    above that resolution have their styles blended, so that colours, too, change under the mask alone. It takes the time of
    drawing both.

    Args:
        generator: any but StyleGAN3.
        below: a batch, or a single code for all of ``above``.
        above: the same, the other way round.
        mask: of any size; of one batch, or a single one.
        resolution: of the features that are put together, from 4 px to the image's: low ones join smoothly but spread
            further, high ones stay where the mask is but may show a seam. ``FEATURES_AT`` at 1024 px spreads less than 5 %.

    Raises:
        LatentMismatch: the latents do not go together, or the generator takes no stylemaps.
        EditError: the mask is empty or holds numbers outside [0, 1], or there are no such features.
    """
    all_sizes, resolutions = map_sizes(generator), generator.style_resolutions
    if resolution not in resolutions:
        known = sorted(set(resolutions))
        raise EditError(f"there are no features of {resolution} px to put together: expected one of {known}")
    sizes = [size if r > resolution else 0 for size, r in zip(all_sizes, resolutions, strict=True)]
    maps_below, maps_above, maps_fine = match_latents([below, above, blend([below, above], [mask], sizes)])
    # The code of the one that is laid over: all its own below the resolution, its own under the mask above it.
    laid = [fine if size else own for fine, own, size in zip(maps_fine, maps_above, sizes, strict=True)]
    both = tuple(torch.cat(_of_one_size(a, b)) for a, b in zip(maps_below, laid, strict=True))
    if all(_agree(a, b) for a, b in zip(maps_below, laid, strict=True)):
        return generator.synthesis(maps_below)  # Nothing changes, not even by rounding.
    batch = batch_size(maps_below)

    def compose(x: Float[Tensor, "both c _ _"]) -> Float[Tensor, "both c _ _"]:
        if x.shape[-1] != resolution:
            return x
        share = resize_mask(mask.to(x), x.shape[2], x.shape[3])
        return torch.cat([x[:batch], torch.lerp(*torch.broadcast_tensors(x[:batch], x[batch:], share))])

    return generator.synthesis(both, compose=compose)[batch:]


def share_inside(
    before: Float[Tensor, "batch 3 height width"],
    after: Float[Tensor, "batch 3 height width"],
    mask: AnyMask,
    grown_by: float = 0.05,
) -> Float[Tensor, " batch"]:
    """Return how much of a change lies where it should: the part of the sum of absolute differences inside the mask.

    Args:
        before: images.
        after: the same, edited.
        mask: where they should differ; all of it counts that is not 0.
        grown_by: share of the image's side that it is dilated by first.

    Returns:
        From 0 to 1; NaN where nothing changed at all.
    """
    change = (after - before).abs().sum(1, keepdim=True)
    inside = dilate((resize_mask(mask, *change.shape[2:]) > 0).to(change), grown_by)
    return (change * inside).sum((1, 2, 3)) / change.sum((1, 2, 3))

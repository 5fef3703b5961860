"""How is a part of a face changed, from the name of the part to the picture? Masks, blending, and how local it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from editing.blending import FEATURES_AT, LOCAL_FROM, blend, draw_blended, map_sizes, share_inside
from editing.errors import EditError
from editing.masks import AnyMask, feather
from generators.base import Generator
from generators.errors import UnknownName
from generators.latent import Latent
from invert.masks import mask_of

SPACES = ("styles", "features", "pixels")
"""A stylemap; the generator's features at one resolution; the drawn pictures."""
Image = Float[Tensor, "3 height width"]


@dataclass(frozen=True)
class Settings:
    """How parts are put together."""

    space: str = "styles"
    """One of ``SPACES``."""
    layers: tuple[int, ...] | None = None
    """That are blended as styles; None for all."""
    feather: float = 0.03
    """How far masks fade out, as a share of the picture's side."""

    def check(self, generator: Generator) -> None:
        """Refuse what cannot be, before the work.

        Raises:
            UnknownName: no such space.
            LatentMismatch: the generator takes no stylemaps.
            EditError: no layer is left.
        """
        if self.space not in SPACES:
            raise UnknownName("space to blend in", self.space, SPACES)
        if self.space != "pixels":
            map_sizes(generator, self.layers)


@dataclass(frozen=True, eq=False)
class Blended:
    """A face of which a part was changed."""

    image: Image
    """In [-1, 1], on the CPU."""
    latent: Latent | None
    """What draws it again; None of features and pixels."""
    mask: Float[Tensor, "1 height width"]
    """All masks together, feathered."""
    share: float | None
    """Of the change, inside the masks as given, grown by 5 % of the side; None where nothing changed."""


def blend_faces(
    generator: Generator,
    latents: Sequence[Latent],
    images: Sequence[Image],
    specs: Sequence[str],
    settings: Settings,
    predictor: Path | None = None,
) -> Blended:
    """Lay parts of further faces over the first one; parts are looked for in the face that they are laid over.

    Args:
        generator: of the latents.
        latents: two or more, of one face each.
        images: what is drawn from them.
        specs: a mask for each but the first; see ``mask_of``.
        settings: how they are put together.
        predictor: see ``part_mask``.

    Raises:
        ToolkitError: as ``mask_of``, ``blend`` and ``draw_blended`` do.
    """
    masks = [mask_of(spec, images[0], predictor) for spec in specs]
    return _put_together(generator, latents, images, masks, settings, lowest=0)


def edit_face(
    generator: Generator,
    latent: Latent,
    edited: Latent,
    image: Image,
    spec: str,
    settings: Settings,
    predictor: Path | None = None,
) -> Blended:
    """Let an edit work in a part of a face alone.

    As styles, only layers from ``LOCAL_FROM`` px on are edited, and masks are not feathered, since both would spread it.

    Args:
        generator: of the latents.
        latent: of one face.
        edited: the same, edited everywhere.
        image: what is drawn from ``latent``.
        spec: a mask; see ``mask_of``.
        settings: how they are put together.
        predictor: see ``part_mask``.

    Raises:
        ToolkitError: as ``mask_of``, ``blend`` and ``draw_blended`` do.
    """
    mask = mask_of(spec, image, predictor)
    return _put_together(generator, [latent, edited], [image], [mask], settings, lowest=LOCAL_FROM)


@torch.no_grad()
def _put_together(
    generator: Generator,
    latents: Sequence[Latent],
    images: Sequence[Image],
    masks: Sequence[AnyMask],
    settings: Settings,
    lowest: int,
) -> Blended:
    device = generator.w_avg.device
    bare = torch.cat([mask.to(device) for mask in masks]).amax(0)
    # A map that is enlarged for its layer fades out by itself: what edits in styles spread need not grow by feathering.
    share = 0.0 if settings.space == "styles" and lowest else settings.feather
    masks = [feather(mask.to(device), share) for mask in masks]
    code: Latent | None = None
    if settings.space == "styles":
        code = blend(latents, masks, map_sizes(generator, settings.layers, lowest))
        image = generator.synthesis(code)
    elif settings.space == "features":
        if len(latents) > 2:
            raise EditError(f"{len(latents)} faces: features are put together of two; blend in styles, or two after two")
        image = draw_blended(generator, latents[0], latents[1], masks[0], min(FEATURES_AT, generator.img_resolution // 4))
    else:
        image = images[0][None].to(device)
        for latent, mask in zip(latents[1:], masks, strict=True):
            image = torch.lerp(image, generator.synthesis(latent), mask)
    # Held against the masks as they were given: what feathering adds is not theirs.
    inside = float(share_inside(images[0][None].to(device), image, bare[None]))
    whole = torch.cat(masks).amax(0).cpu()
    return Blended(image[0].cpu(), code, whole, None if math.isnan(inside) else inside)

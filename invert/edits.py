"""How does an edit that a user wrote become one that can be applied? Its direction is loaded; layers, unit, mask are set.

What comes of it is drawn here, too: an edit may lead to where nothing can be drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from editing.blending import LOCAL_FROM, LocalEdit, map_sizes
from editing.composition import EditSpec, match_name
from editing.directions import Direction, Edit
from editing.errors import EditError
from editing.layers import parse_layers
from editing.masks import feather
from generators.base import Generator, Identity
from generators.errors import UnknownName
from generators.latent import Latent
from invert.masks import PARTS, SHAPES, mask_of
from invert.photo import check_finite
from pretrained.directions import is_direction_file, known_names, load_direction

MASK_FEATHER = 0.02
"""Share of the face's side over which an edit fades out around its mask."""


def check_name(spec: EditSpec, generator: Identity | str) -> EditSpec:
    """Give an edit's name as the toolkit spells it; a path stays as it is.

    Raises:
        UnknownName: neither a direction that ships for the generator nor a file.
    """
    if is_direction_file(spec.name):
        return spec
    return spec._replace(name=match_name(spec.name, known_names(generator)))


def load_directions(
    edits: Iterable[EditSpec], generator: Generator, loaded: Mapping[str, Direction] = MappingProxyType({})
) -> dict[str, Direction]:
    """Load the directions that edits name, each once and none that is loaded already; their layers are checked, too.

    Raises:
        UnknownName: no such direction, layers, or mask.
        LatentMismatch: it was learnt for another generator, or this one cannot be edited in places.
        EditError: the generator lacks a layer, or none of them can be edited in places.
    """
    directions = dict(loaded)
    for spec in edits:
        if spec.name not in directions:
            directions[spec.name] = load_direction(spec.name, generator.identity)
        direction = _as_asked(spec, directions[spec.name], generator)
        if spec.mask is not None:
            _map_sizes(spec, direction, generator)
            _check_mask(spec.mask)
    return directions


def as_edit(
    spec: EditSpec,
    direction: Direction,
    generator: Generator,
    image: Float[Tensor, "3 size size"] | None = None,
    predictor: Path | None = None,
) -> Edit:
    """Set a direction's layers, unit and mask as an edit asks for.

    Args:
        spec: what is asked for.
        direction: that it names.
        generator: whose codes it will edit.
        image: the face as the generator draws it, in [-1, 1]: what masks are laid over.
        predictor: dlib's 68-point model, for parts of the face; see ``mask_of``.

    Raises:
        UnknownName: no such layers, or no such mask.
        EditError: the generator lacks a layer, the mask is empty, or there is no image to find it in.
        LatentMismatch: the direction is of another width or number of layers, or the generator cannot be edited in places.
        NoFaceFound: the part is not visible.
        PhotoError: a painted mask cannot be read.
    """
    asked = _as_asked(spec, direction, generator)
    if spec.mask is None:
        return asked
    if image is None:
        raise EditError(f"the edit {spec} is for a part of the face, but there is no picture to find it in")
    mask = feather(mask_of(spec.mask, image, predictor), MASK_FEATHER).to(generator.w_avg.device)
    return LocalEdit(asked, mask, _map_sizes(spec, asked, generator))


@torch.no_grad()
def draw_edited(latent: Latent, generator: Generator) -> Float[Tensor, "batch 3 height width"]:
    """Draw a code that was edited.

    Raises:
        ImageError: it cannot be drawn; the message says what to do about the edit.
    """
    advice = "its code lies too far from those that the generator knows; take smaller strengths"
    if generator.synthesis.feature_dtype is not None:
        advice += ", or let the generator compute in float32 (--dtype)"
    return check_finite(generator.synthesis(latent), advice)


def _as_asked(spec: EditSpec, direction: Direction, generator: Generator) -> Direction:
    if spec.layers is not None:
        direction = direction.on_layers(parse_layers(spec.layers, generator.num_ws))
    direction.check_shape(generator.num_ws, generator.w_dim)
    return replace(direction, unit=1.0) if spec.raw else direction


def _map_sizes(spec: EditSpec, direction: Direction, generator: Generator) -> tuple[int, ...]:
    """Choose the layers that may change in places: those that a user names, else such as keep to the mask."""
    return map_sizes(generator, direction.layers, LOCAL_FROM if spec.layers is None else 0)


def _check_mask(mask: str) -> None:
    """Refuse a mask of an unknown name before any work; the rest of it is read once there is a face."""
    for part in [] if Path(mask).is_file() else mask.split("+"):
        name = part.partition(":")[0].strip()
        if name.lower() not in (*PARTS, *SHAPES) and not Path(part.strip()).is_file():
            raise UnknownName("mask (nor is there such a file)", name, [*PARTS, *SHAPES])

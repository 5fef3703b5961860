"""How does an edit that a user wrote become one that can be applied? Its direction is loaded, layers and unit are set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from editing.composition import EditSpec, match_name
from editing.directions import Direction, Edit
from editing.layers import parse_layers
from generators.base import Generator, Identity
from pretrained.directions import is_direction_file, known_names, load_direction


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
        UnknownName: no such direction, or no such layers.
        LatentMismatch: it was learnt for another generator.
        EditError: the generator lacks a layer.
    """
    directions = dict(loaded)
    for spec in edits:
        if spec.name not in directions:
            directions[spec.name] = load_direction(spec.name, generator.identity)
        as_edit(spec, directions[spec.name], generator)
    return directions


def as_edit(spec: EditSpec, direction: Direction, generator: Generator) -> Edit:
    """Set a direction's layers and unit as an edit asks for.

    Raises:
        UnknownName: no such layers.
        EditError: the generator lacks a layer.
    """
    if spec.layers is not None:
        direction = direction.on_layers(parse_layers(spec.layers, generator.num_ws))
    return replace(direction, unit=1.0) if spec.raw else direction

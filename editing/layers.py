"""Which layers does a user mean? ``coarse``, ``middle``, ``fine``, ``0-3,7``: names and ranges, as numbers."""

from __future__ import annotations

import re

from editing.errors import EditError
from generators.errors import UnknownName
from generators.latent import COARSE, FINE, MIDDLE

LEVELS = {"coarse": COARSE, "middle": MIDDLE, "fine": FINE, "all": slice(None)}
"""By the resolutions of Karras et al. 2019, section 3: 4-8 px, 16-32 px, from 64 px on; and all of them."""


def parse_layers(text: str, num_ws: int) -> tuple[int, ...]:
    """Read layers such as ``coarse``, ``0-3``, ``4,7-9`` or ``coarse,fine``.

    Args:
        text: as typed; parts are separated by commas, ranges include both ends.
        num_ws: the generator's number of layers.

    Returns:
        The numbers of the layers, sorted, each once, at least one.

    Raises:
        UnknownName: a part is neither a level nor a number nor a range; close names are given.
        EditError: a layer that the generator does not have, or a range that runs backwards.
    """
    layers: set[int] = set()
    for part in (part.strip().lower() for part in text.split(",")):
        layers.update(_level(part, num_ws) if part in LEVELS else _range(part, num_ws))
    return tuple(sorted(layers))


def _level(name: str, num_ws: int) -> range:
    layers = range(num_ws)[LEVELS[name]]
    if not layers:
        raise EditError(f"this generator has no {name} layers: it has only {num_ws}")
    return layers


def _range(part: str, num_ws: int) -> range:
    match = re.fullmatch(r"(\d{1,4})(?:\s*-\s*(\d{1,4}))?", part, re.ASCII)
    if match is None:
        raise UnknownName("layer", part, [*LEVELS, "0", "0-3"])
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise EditError(f"layers {part!r}: the range runs backwards; write {last}-{first}")
    if last >= num_ws:
        raise EditError(f"layer {last}: this generator has the layers 0 to {num_ws - 1}")
    return range(first, last + 1)

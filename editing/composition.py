"""What did the user ask for? Edits as text (``age=+3``), and several edits one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from editing.directions import Edit, Strength
from editing.errors import EditError
from generators.errors import UnknownName
from generators.latent import Latent


class EditSpec(NamedTuple):
    """An edit by name."""

    name: str
    strength: float

    def __str__(self) -> str:
        return f"{self.name}={self.strength:+g}"


def parse_edit(text: str, known: Iterable[str] | None = None) -> EditSpec:
    """Read ``NAME=STRENGTH``, such as ``age=+3`` or ``smile=-2.5``.

    Args:
        text: as typed; blanks around its parts do not matter, nor does the name's case.
        known: the names that there are; None accepts any, such as the path of a file.

    Raises:
        EditError: no name, no ``=``, or a strength that is no finite number.
        UnknownName: the name is not among ``known``.
    """
    name, separator, number = (part.strip() for part in text.rpartition("="))
    if not separator or not name:
        raise EditError(f"edit {text!r}: expected NAME=STRENGTH, such as age=+3 or smile=-2.5")
    if known is not None:
        names = list(known)
        name = next((candidate for candidate in names if candidate.lower() == name.lower()), name)
        if name not in names:
            raise UnknownName("edit", name, names)
    try:
        strength = float(number.replace("−", "-"))  # The typographic minus, as copied from a text.
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise EditError(f"edit {text!r}: {number!r} is no strength; expected a number, such as {name}=+3 or {name}=-2.5")
    return EditSpec(name, strength)


def parse_edits(texts: Iterable[str], known: Iterable[str] | None = None) -> list[EditSpec]:
    """Read several edits; see ``parse_edit``. One text may hold several, separated by commas."""
    names = None if known is None else list(known)
    return [parse_edit(part, names) for text in texts for part in text.split(",")]


def apply_edits(latent: Latent, edits: Iterable[tuple[Edit, Strength]]) -> Latent:
    """Apply edits from left to right; none give the latent itself.

    Raises:
        LatentMismatch: an edit does not fit the latent.
        EditError: a strength is NaN or infinite.
    """
    for edit, strength in edits:
        latent = edit(latent, strength)
    return latent

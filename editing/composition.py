"""What did the user ask for? Edits as text (``age=+3``, ``smile@coarse=-2``), and several edits one after the other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from editing.directions import Edit, Strength
from editing.errors import EditError
from generators.errors import UnknownName
from generators.latent import Latent


class EditSpec(NamedTuple):
    """One edit, as a user writes it; nothing is loaded yet."""

    name: str
    """Of a direction, or the path of its file."""
    strength: float
    layers: str | None = None
    """As ``parse_layers`` reads them; None for those of the direction."""
    raw: bool = False
    """The strength is a length in the latent space, not in the direction's unit."""
    mask: str | None = None
    """Where in the face: a part's name, a shape or a painted file; None for everywhere."""
    face: int | None = None
    """Of which face of the photo, from 0 (the largest); None for all that are worked on."""

    def __str__(self) -> str:
        """Write the edit as ``parse_edit`` reads it; the face has no place there."""
        layers, unit = "" if self.layers is None else f"@{self.layers}", "raw:" if self.raw else ""
        strength = f"{self.strength:+}".removesuffix(".0")  # All digits, so that nothing is lost.
        return f"{self.name}{layers}={unit}{strength}{'' if self.mask is None else f'@{self.mask}'}"


def parse_edit(text: str, known: Iterable[str] | None = None) -> EditSpec:
    """Read ``NAME[@LAYERS]=[raw:]STRENGTH[@MASK]``: ``age=+3``, ``smile@coarse=-2``, ``age=raw:1.5``, ``smile=2@mouth``.

    Args:
        text: as typed; blanks around its parts do not matter, nor does the name's case.
        known: the names that there are; None accepts any, such as the path of a file.

    Raises:
        EditError: no name, no ``=``, or a strength that is no finite number.
        UnknownName: the name is not among ``known``.
    """
    target, separator, amount = (part.strip() for part in text.rpartition("="))
    name, layers = split_layers(target)
    if not separator or not name:
        raise EditError(f"edit {text!r}: expected NAME=STRENGTH, such as age=+3 or smile@coarse=-2.5")
    if known is not None:
        name = match_name(name, known)
    number, sign, mask = (part.strip() for part in amount.partition("@"))
    is_raw = number.lower().startswith("raw:")
    strength = _strength(number[4:] if is_raw else number, text, name)
    return EditSpec(name, strength, layers, is_raw, mask if sign else None)


def match_name(name: str, known: Iterable[str]) -> str:
    """Find a name among those that there are, whatever its case.

    Raises:
        UnknownName: it is not among them; close ones are given.
    """
    names = list(known)
    for candidate in names:
        if candidate.lower() == name.lower():
            return candidate
    raise UnknownName("edit", name, names)


def split_layers(target: str) -> tuple[str, str | None]:
    """Split ``NAME[@LAYERS]`` into name and layers; None where there are none."""
    name, sign, layers = (part.strip() for part in target.rpartition("@"))
    if not sign or not re.fullmatch(r"[\w\s,-]*", layers):  # A path may hold the sign, too.
        return target.strip(), None
    return name, layers


def _strength(number: str, text: str, name: str) -> float:
    try:
        strength = float(number.replace("−", "-"))  # The typographic minus, as copied from a text.
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise EditError(f"edit {text!r}: {number!r} is no strength; expected a number, such as {name}=+3 or {name}=-2.5")
    return strength


def parse_edits(texts: Iterable[str], known: Iterable[str] | None = None) -> list[EditSpec]:
    """Read several edits; see ``parse_edit``. One text may hold several, separated by commas."""
    names = None if known is None else list(known)
    return [parse_edit(part, names) for text in texts for part in _split_at_commas(text)]


def _split_at_commas(text: str) -> list[str]:
    """Split ``age@0-3,7=2,smile=1`` into two: a comma in a list of layers, or in a mask, separates no edits."""
    parts: list[str] = []
    for part in text.split(","):
        if parts and "@" in parts[-1] and ("=" not in parts[-1] or "=" not in part):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def apply_edits(latent: Latent, edits: Iterable[tuple[Edit, Strength]]) -> Latent:
    """Apply edits from left to right; none give the latent itself.

    Raises:
        LatentMismatch: an edit does not fit the latent.
        EditError: a strength is NaN or infinite.
    """
    for edit, strength in edits:
        latent = edit(latent, strength)
    return latent

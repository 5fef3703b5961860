"""How is one photo edited many times? Set it once, then edit; and edits by name for a latent at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from editing.composition import EditSpec, apply_edits, parse_edits, split_layers
from editing.directions import Direction, Edit
from generators.base import Generator
from generators.errors import ToolkitError
from generators.latent import Latent, batch_size, check_latent
from invert.edits import as_edit, draw_edited, load_directions
from invert.faces import AlignedFace, align, already_aligned, detect, paste_back
from invert.inversion import Inversion, Inverter
from invert.inverters import load_inverter
from invert.latents import load_latent
from invert.recipe import Paste, Recipe

Edits: TypeAlias = Mapping[str, float | int] | Iterable[str | EditSpec]
"""Strengths by ``NAME[@LAYERS]``, or a list such as ``["age=+2", "smile@coarse=-1"]``; applied in order."""


def edit(latent: Latent, edits: Edits, generator: Generator) -> Latent:
    """Apply directions by name, in order: ``edit(latent, {"age": 2, "smile@coarse": -1}, generator)``.

    Args:
        latent: a w_plus or a stylemap, of any batch; left as it is.
        edits: ``NAME[@LAYERS]`` and strengths, or a list of ``NAME[@LAYERS]=[raw:]STRENGTH``. NAME is a direction that
            ships for the generator, or the path of a file. A strength of 1 is a standard deviation of the attribute, or a
            part of one; -3 to 3 are useful. ``raw:`` makes it a length in the latent space.
        generator: whose codes they are; ``inversion.generator`` where it was tuned.

    Returns:
        A latent of the same space and shape, for ``generator.synthesis``.

    Raises:
        UnknownName: no such direction, layers or mask.
        LatentMismatch: a direction, or the latent, belongs to another generator or is of another shape.
        EditError: an edit that cannot be read, a strength that is NaN or infinite, or a layer that the generator lacks. A
            mask (``smile=2@mouth``), too: there is no picture to find it in, as ``Editor`` has one.
        BrokenFile: a direction's file cannot be read.
    """
    check_latent(latent, generator.num_ws, generator.w_dim)
    specs = as_specs(edits)
    directions = load_directions(specs, generator)
    return apply_edits(latent, [(as_edit(spec, directions[spec.name], generator), spec.strength) for spec in specs])


def as_specs(edits: Edits) -> tuple[EditSpec, ...]:
    """Read edits in any of their forms.

    Raises:
        EditError: one that cannot be read.
    """
    if isinstance(edits, Mapping):
        targets = [(*split_layers(target), strength) for target, strength in edits.items()]
        return tuple(EditSpec(name, float(strength), layers) for name, layers, strength in targets)
    if isinstance(edits, str):  # Else each of its letters would be taken for an edit.
        edits = [edits]
    return tuple(spec for entry in edits for spec in ([entry] if isinstance(entry, EditSpec) else parse_edits([entry])))


class Editor:
    """One face, inverted once and edited many times.

        editor = Editor(generator).set_photo(photo)
        editor.add("age=+2").add("smile=-1")
        editor.photo                    # The whole photo with both edits in it.
        editor.undo().remove(0)         # Dropping an entry undoes it, the last one or any other.

    Edits are always applied to the inversion itself, so that nothing wears off. Directions are read once.
    """

    def __init__(self, generator: Generator, method: str = "stylemap", paste: Paste = "face", **options: Any) -> None:
        """Prepare a method; ``options`` are those of ``load_inverter``.

        Args:
            generator: from ``load_generator``.
            method: how a photo is inverted; loaded with the first one, so that latents need none.
            paste: ``face`` puts the drawn face into the photo, ``change`` only what the edits changed.
            **options: see ``load_inverter``.
        """
        self.generator, self.method, self.paste, self.options = generator, method, paste, options
        self.original: UInt8[np.ndarray, "height width 3"] | None = None
        self.face: AlignedFace | None = None
        self.inversion: Inversion | None = None
        self._inverter: Inverter | None = None
        self._directions: dict[str, Direction] = {}
        self._choice: dict[str, Any] = {}
        self._ready: dict[EditSpec, Edit] = {}
        """Edits as they are for the face at hand, whatever their strength."""
        self._edits: tuple[EditSpec, ...] = ()
        self._past: list[tuple[EditSpec, ...]] = []
        self._future: list[tuple[EditSpec, ...]] = []

    def set_photo(
        self, photo: UInt8[np.ndarray, "height width 3"], face: str | int = "largest", is_aligned: bool = False
    ) -> Editor:
        """Find a face and invert it; the list of edits stays and now holds for this photo.

        Raises:
            NoFaceFound: there is none.
            UnknownName: no such method.
        """
        resolution = self.generator.img_resolution
        found = already_aligned(photo, resolution) if is_aligned else align(photo, detect(photo, face)[0], resolution)
        if self._inverter is None:
            self._inverter = load_inverter(self.method, self.generator, **self.options)
        inversion = self._inverter(found.image[None].to(self.generator.w_avg.device))
        self.original, self.face, self.inversion = photo, found, inversion
        self._choice, self._ready = {"face": face, "is_aligned": is_aligned}, {}
        return self

    def set_latent(self, latent: Latent | Path | str) -> Editor:
        """Take one code, or the file of one, instead of a photo; there is then nothing to paste into.

        Raises:
            LatentMismatch: it is no single code, or belongs to another generator.
            BrokenFile: the file holds no latent.
        """
        code = load_latent(latent, self.generator).latent if isinstance(latent, Path | str) else latent
        maps = check_latent(code, self.generator.num_ws, self.generator.w_dim)
        if batch_size(maps) != 1:
            raise ToolkitError(f"the latent holds {batch_size(maps)} codes, expected one: select(latent, 0) takes the first")
        device = self.generator.w_avg.device
        code = code.to(device) if isinstance(code, Tensor) else tuple(style.to(device) for style in code)
        with torch.no_grad():
            self.inversion = Inversion(code, self.generator.synthesis(code))
        self.original = self.face = None
        self._choice, self._ready = {}, {}
        return self

    @property
    def edits(self) -> tuple[EditSpec, ...]:
        """The list of edits, in the order they are applied."""
        return self._edits

    def set_edits(self, edits: Edits) -> Editor:
        """Replace the whole list.

        Raises:
            UnknownName: no such direction, or no such layers.
            LatentMismatch: a direction belongs to another generator.
            EditError: an edit that cannot be read.
        """
        specs = as_specs(edits)
        self._load(specs)
        self._past, self._future = [*self._past, self._edits], []
        self._edits = specs
        return self

    def add(self, *edits: str | EditSpec) -> Editor:
        """Append edits such as ``"age=+2"``; errors as of ``set_edits``."""
        return self.set_edits((*self._edits, *as_specs(edits)))

    def replace(self, number: int, edit: str | EditSpec) -> Editor:
        """Put another edit in the place of one, counted from 0.

        Raises:
            IndexError: there is no such edit.
        """
        number = self._checked(number)
        return self.set_edits((*self._edits[:number], *as_specs([edit]), *self._edits[number + 1 :]))

    def remove(self, number: int) -> Editor:
        """Drop an edit, counted from 0.

        Raises:
            IndexError: there is no such edit.
        """
        number = self._checked(number)
        return self.set_edits((*self._edits[:number], *self._edits[number + 1 :]))

    def undo(self) -> Editor:
        """Go back to the list before the last change of it; at the first one, nothing happens."""
        if self._past:
            self._future.append(self._edits)
            self._edits = self._past.pop()
        return self

    def redo(self) -> Editor:
        """Take an ``undo`` back; nothing happens where there is none."""
        if self._future:
            self._past.append(self._edits)
            self._edits = self._future.pop()
        return self

    @property
    def recipe(self) -> Recipe:
        """What leads from the photo to the result; ``recipe.as_dict()`` is JSON."""
        return Recipe(
            self.method,
            {key: value for key, value in self.options.items() if isinstance(value, str | int)},
            self._edits,
            paste=self.paste,
            generator=self.generator.identity.name,
            generator_sha256=self.generator.identity.sha256,
            **self._choice,
        )

    @property
    def latent(self) -> Latent:
        """The code with the edits of the list."""
        return self.edited_latent(self._edits)

    @property
    def image(self) -> Float[Tensor, "3 height width"]:
        """The face with the edits of the list, drawn anew each time; in [-1, 1]."""
        return self.edited_face(self._edits)

    @property
    def photo(self) -> UInt8[np.ndarray, "height width 3"]:
        """The whole photo with the edits of the list, drawn anew each time."""
        return self.edited_photo(self._edits)

    def edited_latent(self, edits: Edits) -> Latent:
        """Return the code with other edits than those of the list, which stays as it is; errors as of ``set_edits``."""
        specs = as_specs(edits)
        self._load(specs)
        return apply_edits(self._inverted().latent, [(self._as_edit(spec), spec.strength) for spec in specs])

    def edited_face(self, edits: Edits) -> Float[Tensor, "3 height width"]:
        """Draw the face with other edits than those of the list, in [-1, 1].

        Raises:
            ImageError: an edit leads too far from what the generator can draw.
        """
        specs = as_specs(edits)
        latent = self.edited_latent(specs)
        generator = self._inverted().generator or self.generator
        with torch.no_grad():
            return (draw_edited(latent, generator) if specs else generator.synthesis(latent))[0]

    def edited_photo(self, edits: Edits) -> UInt8[np.ndarray, "height width 3"]:
        """Return the whole photo with other edits than those of the list.

        Raises:
            ToolkitError: there is no photo, only a latent.
            ImageError: as of ``edited_face``.
        """
        inversion = self._inverted()
        if self.original is None or self.face is None:
            raise ToolkitError("a latent has no photo to paste into: take edited_face, or call set_photo")
        before = inversion.image[0].cpu() if self.paste == "change" else None
        return paste_back(self.original, self.edited_face(edits).cpu(), self.face, inverted=before, match_colour=True)

    def _as_edit(self, spec: EditSpec) -> Edit:
        """Make an edit once for all strengths: finding a part of the face takes longer than drawing it."""
        kind = spec._replace(strength=0.0, face=None)
        if kind not in self._ready:
            image = self._inverted().image[0]
            self._ready[kind] = as_edit(spec, self._directions[spec.name], self.generator, image)
        return self._ready[kind]

    def _load(self, specs: Iterable[EditSpec]) -> None:
        self._directions = load_directions(specs, self.generator, self._directions)

    def _checked(self, number: int) -> int:
        if not -len(self._edits) <= number < len(self._edits):
            raise IndexError(f"no edit number {number}: the list has {len(self._edits)}")
        return number % len(self._edits)

    def _inverted(self) -> Inversion:
        if self.inversion is None:
            raise ToolkitError("no photo yet: call set_photo, or set_latent, first")
        return self.inversion

"""How is one photo edited many times? Set it once, then edit; and edits by name for a latent at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from editing.composition import apply_edits
from generators.base import Generator
from generators.errors import ToolkitError
from generators.latent import Latent
from invert.faces import AlignedFace, align, detect, paste_back
from invert.inversion import Inversion
from invert.inverters import load_inverter
from pretrained.directions import load_direction


def edit(latent: Latent, strengths: Mapping[str, float | int], generator: Generator) -> Latent:
    """Apply directions by name, in order: ``edit(latent, {"age": 2, "smile": -1}, generator)``.

    Raises:
        UnknownName: no such direction.
        LatentMismatch: a direction, or the latent, belongs to another generator.
        EditError: a strength is NaN or infinite.
    """
    return apply_edits(
        latent, [(load_direction(name, generator.identity), strength) for name, strength in strengths.items()]
    )


class Editor:
    """One photo, inverted once and edited many times; holds nothing but the last inversion."""

    def __init__(self, generator: Generator, method: str = "stylemap", **options: Any) -> None:
        """Prepare a method; ``options`` are those of ``load_inverter``."""
        self.generator = generator
        self.inverter = load_inverter(method, generator, **options)
        self.photo: UInt8[np.ndarray, "height width 3"] | None = None
        self.face: AlignedFace | None = None
        self.inversion: Inversion | None = None

    def set_photo(self, photo: UInt8[np.ndarray, "height width 3"], face: str | int = "largest") -> Editor:
        """Find a face and invert it.

        Raises:
            NoFaceFound: there is none.
        """
        self.photo = photo
        self.face = align(photo, detect(photo, face)[0], self.generator.img_resolution)
        self.inversion = self.inverter(self.face.image[None].to(self.generator.w_avg.device))
        return self

    def edited_face(self, strengths: Mapping[str, float | int]) -> Float[Tensor, "3 height width"]:
        """Draw the face with edits, in [-1, 1]."""
        _, _, inversion = self._current()
        with torch.no_grad():
            return self.generator.synthesis(edit(inversion.latent, strengths, self.generator))[0]

    def edited_photo(self, strengths: Mapping[str, float | int]) -> UInt8[np.ndarray, "height width 3"]:
        """Return the whole photo with the edited face in it."""
        photo, face, _ = self._current()
        return paste_back(photo, self.edited_face(strengths).cpu(), face)

    def _current(self) -> tuple[UInt8[np.ndarray, "height width 3"], AlignedFace, Inversion]:
        if self.photo is None or self.face is None or self.inversion is None:
            raise ToolkitError("no photo yet: call set_photo first")
        return self.photo, self.face, self.inversion

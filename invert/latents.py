"""How is a latent kept? As one safetensors that remembers which generator, photo and crop it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from generators.base import Generator, Identity
from generators.errors import LatentMismatch
from generators.latent import Latent, as_stylemaps, check_latent, space_of
from invert.photo import whole_file
from pretrained import safetensors
from pretrained.errors import BrokenFile


@dataclass(frozen=True)
class SavedLatent:
    """A latent from a file."""

    latent: Latent
    generator: Identity
    card: dict[str, Any]
    """What else the file says: space, photo_sha256, crop_from_photo, toolkit_version, method."""

    @property
    def crop_from_photo(self) -> Float64[np.ndarray, "3 3"] | None:
        """Photo pixels to crop pixels, where the latent came from a photo."""
        matrix = self.card.get("crop_from_photo")
        return None if matrix is None else np.asarray(matrix, dtype=np.float64).reshape(3, 3)


def save_latent(path: Path | str, latent: Latent, generator: Generator | Identity, **card: Any) -> None:
    """Write a latent, whole or not at all; ``load_latent`` reads it.

    Args:
        path: a ``.safetensors``.
        latent: a w_plus or a stylemap, of any batch.
        generator: that it belongs to.
        **card: kept beside it; JSON values.

    Raises:
        OutputError: the place cannot be written.
    """
    identity = generator.identity if isinstance(generator, Generator) else generator
    if space_of(latent) == "w_plus":
        tensors = {"w_plus": torch.stack([style[:, :, 0, 0] for style in as_stylemaps(latent)], 1)}
    else:
        tensors = {f"layer_{layer:02d}": style for layer, style in enumerate(as_stylemaps(latent))}
    entries = {
        "kind": "latent",
        "space": space_of(latent),
        "generator": identity.name,
        "generator_sha256": identity.sha256,
    }
    with whole_file(path) as temporary:
        safetensors.save(temporary, {name: value.detach().cpu() for name, value in tensors.items()}, entries | card)


def load_latent(path: Path | str, generator: Generator | None = None) -> SavedLatent:
    """Read a latent.

    Args:
        path: written by ``save_latent``.
        generator: that will draw it; checked against the one that it was found for.

    Raises:
        BrokenFile: not such a file, or one with numbers that are not finite.
        LatentMismatch: the latent belongs to another generator; the message names both.
    """
    tensors, card = safetensors.load(Path(path))
    maps = [tensors[name] for name in sorted(tensors) if name.startswith("layer_")]
    latent: Latent | None = tensors.get("w_plus") if "w_plus" in tensors else tuple(maps) or None
    if card.get("kind") != "latent" or latent is None:
        raise BrokenFile(f"{path}: no latent; expected a latent.safetensors that this toolkit wrote")
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise BrokenFile(f"{path}: holds numbers that are not finite")
    identity = Identity(str(card.get("generator")), str(card.get("generator_sha256", "")))
    if generator is not None:
        if not identity.fits(generator.identity):
            raise LatentMismatch(f"{path} belongs to the generator {identity}, not to {generator.identity}")
        check_latent(latent, generator.num_ws, generator.w_dim)
    return SavedLatent(latent, identity, card)

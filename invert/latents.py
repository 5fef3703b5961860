"""How is a latent kept? As one safetensors that remembers which generator, photo and crop it belongs to.

Others keep bare arrays of W or W+, which remember nothing: ``read_latents`` reads these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from generators.base import Generator, Identity
from generators.errors import LatentMismatch
from generators.latent import Latent, as_stylemaps, check_latent, space_of
from invert.photo import whole_file
from pretrained import safetensors
from pretrained.errors import BrokenFile
from pretrained.published import read_array


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


def read_latents(path: Path | str, generator: Generator) -> Float[Tensor, "n *num_ws w_dim"]:
    """Read codes that others have found: an array of NumPy or PyTorch, or a safetensors with one tensor.

    In a file of several arrays it is the one named ``w``, as NVIDIA's projector writes it. Nothing in a file is run.

    Returns:
        Codes of W, (n, w_dim), or of W+, (n, num_ws, w_dim), on the CPU.

    Raises:
        BrokenFile: the file cannot be read, holds something else, or numbers that are not finite.
        LatentMismatch: they are of another width or number of layers than the generator's, or it cannot be told whether
            they are one code of W+ or many of W.
    """
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        tensors = list(safetensors.load(path)[0].values())
        codes = tensors[0].float() if len(tensors) == 1 else torch.zeros(0)
    else:
        codes = read_array(path)
    num_ws, w_dim = generator.num_ws, generator.w_dim
    if codes.ndim not in (2, 3) or 0 in codes.shape:
        raise BrokenFile(f"{path}: expected latents of shape (n, w_dim) or (n, num_ws, w_dim), got {tuple(codes.shape)}")
    if codes.shape[1:] not in ((w_dim,), (num_ws, w_dim)):
        width, layers = codes.shape[-1], codes.shape[1]
        theirs = f"styles {width} wide" if width != w_dim else f"a generator of {layers} layers"
        raise LatentMismatch(
            f"{path}: latents of shape {tuple(codes.shape)}, made for {theirs}: {generator.identity} takes (n, {w_dim}) or"
            f" (n, {num_ws}, {w_dim}); add --generator with the one that they were made for"
        )
    if codes.shape == (num_ws, w_dim):
        raise LatentMismatch(
            f"{path}: latents of shape {tuple(codes.shape)} may be one code of W+ or {num_ws} of W: save code[None], or"
            f" w[:, None].repeat(1, {num_ws}, 1)"
        )
    if not bool(torch.isfinite(codes).all()):
        raise BrokenFile(f"{path}: holds numbers that are not finite")
    return codes

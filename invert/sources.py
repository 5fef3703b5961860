"""Which faces does a user mean? Photos, saved latents and sampled faces, all as codes of one generator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from generators.base import Generator
from generators.errors import LatentMismatch
from generators.latent import Latent, batch_size, select
from invert.errors import PhotoError, SourceError
from invert.faces import align, already_aligned, detect, paste_back
from invert.inversion import Inverter
from invert.latents import load_latent, read_latents
from invert.photo import find_photos, photo_stem, read_photo

TRUNCATION_PSI = 0.7
"""Of sampled faces: whole ones are rarer faces, and now and then none."""
MAX_SEEDS = 1000
LATENT_SUFFIXES = (".safetensors", ".pt", ".npy", ".npz")
"""Of files that hold codes; the first is the toolkit's own, the others hold arrays of W or W+."""
USUAL_LAYERS = range(8, 19, 2)
"""Of generators of 32 to 1024 px: as many rows of styles are more likely one code of W+ than as many faces in W."""


def is_code(text: str) -> bool:
    """Tell whether a user means a seed or a saved latent, not a photo."""
    return text.startswith("seed:") or Path(text).suffix.lower() in LATENT_SUFFIXES


@dataclass(frozen=True, eq=False)
class Source:
    """One face as a code."""

    name: str
    """For labels: a file's stem, or ``seed 42``."""
    latent: Latent
    """A batch of one."""
    z: Float[Tensor, "1 z_dim"] | None = None
    """Where the face was sampled."""
    photo: Path | None = None
    """That the face was cut out of, where it was, and can be read once more."""
    crop_from_photo: Float64[np.ndarray, "3 3"] | None = None
    """Its pixels to those of a crop of the generator's resolution; None where the photo is the face itself."""


def seeds_of(text: str) -> list[int]:
    """Read ``seed:42``, ``seed:1,2,5`` or ``seed:1-4``.

    Raises:
        SourceError: these are no seeds, or far too many.
    """
    seeds: list[int] = []
    for part in text.removeprefix("seed:").split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        if match is None:
            raise SourceError(f"{text!r}: expected seed:42, seed:1,2,5 or seed:1-4, of numbers from 0")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= MAX_SEEDS:
            raise SourceError(f"{text!r}: a range of seeds rises, and holds at most {MAX_SEEDS}")
        seeds += range(first, last + 1)
    return seeds


def sample(generator: Generator, seed: int, truncation_psi: float = TRUNCATION_PSI) -> Source:
    """Draw a random face, the one that NVIDIA's scripts draw for this seed."""
    z = torch.from_numpy(np.random.RandomState(seed).randn(1, generator.z_dim)).to(generator.w_avg)
    with torch.no_grad():
        return Source(f"seed {seed}", generator.mapping(z, truncation_psi), z)


def read_sources(
    texts: Iterable[str],
    generator: Generator,
    load_inverter: Callable[[], Inverter],
    *,
    truncation_psi: float = TRUNCATION_PSI,
    face: str | int = "largest",
    is_aligned: bool = False,
    predictor: Path | None = None,
) -> list[Source]:
    """Resolve what a user typed into faces, in the order given.

    Args:
        texts: photos or folders of them, ``latent.safetensors`` files, arrays of W or W+ (see ``read_latents``) as
            ``.pt``, ``.npy`` or ``.npz``, ``seed:42`` and the like (see ``seeds_of``). Each code of a file is a face.
        generator: whose codes they become.
        load_inverter: called once, if there is a photo.
        truncation_psi: of sampled faces.
        face: of a photo; see ``detect``.
        is_aligned: photos are aligned faces already.
        predictor: dlib's 68-point model, for exact crops.

    Raises:
        SourceError: seeds that are none.
        LatentMismatch: a latent belongs to another generator, or is of another width or number of layers, or an array may
            be one code of W+ as well as many of W.
        BrokenFile: a latent's file cannot be read.
        PhotoError: a photo cannot be read, or there is no such file.
        NoFaceFound: a photo has no face.
    """
    found: list[Source] = []
    inverter: Inverter | None = None
    for text in texts:
        if text.startswith("seed:"):
            found += [sample(generator, seed, truncation_psi) for seed in seeds_of(text)]
        elif is_code(text):
            found += _saved(Path(text), generator)
        else:
            if text != "-" and not Path(text).exists():  # Before anything is loaded for it.
                raise PhotoError(f"{text}: no such file; a face is a photo, a folder, a latent.safetensors, or seed:42")
            inverter = inverter or load_inverter()
            for path in find_photos([text]):
                photo = read_photo(path)
                if is_aligned:
                    aligned = already_aligned(photo, generator.img_resolution)
                else:
                    aligned = align(photo, detect(photo, face, predictor=predictor)[0], generator.img_resolution)
                code = inverter(aligned.image[None].to(generator.w_avg.device)).latent
                crop = None if is_aligned or path == Path("-") else aligned.crop_from_photo
                found.append(Source(photo_stem(path), code, photo=path, crop_from_photo=crop))
    return found


def into_photo(
    source: Source, image: Float[Tensor, "3 size size"], inverted: Float[Tensor, "3 size size"] | None = None
) -> UInt8[np.ndarray, "height width 3"] | None:
    """Put what became of a face back into the photo that it was cut out of.

    Args:
        source: of ``read_sources``.
        image: drawn at the generator's full resolution, in [-1, 1].
        inverted: what its own code draws; with it, only the difference is added to the photo (see ``paste_back``).

    Returns:
        The whole photo; None where there is none: a seed, a saved latent, an aligned face, standard input.

    Raises:
        PhotoError: the photo cannot be read any more.
    """
    if source.photo is None or source.crop_from_photo is None:
        return None
    return paste_back(read_photo(source.photo), image, source.crop_from_photo, inverted=inverted, match_colour=True)


def _saved(path: Path, generator: Generator) -> list[Source]:
    if not path.is_file():
        raise PhotoError(f"{path}: no such file")
    if path.suffix.lower() == LATENT_SUFFIXES[0]:
        latent = load_latent(path, generator).latent
    else:
        codes = read_latents(path, generator)
        if codes.ndim == 2 and len(codes) in USUAL_LAYERS:
            rows, width = codes.shape
            raise LatentMismatch(
                f"{path}: latents of shape {(rows, width)} may be one code of W+, of a generator of {rows} layers, or"
                f" {rows} of W: save code[None], of shape {(1, rows, width)}, and add --generator with that one, or"
                f" w[:, None].repeat(1, {generator.num_ws}, 1); one code of W is {(1, width)}"
            )
        latent = codes if codes.ndim == 3 else codes[:, None].repeat(1, generator.num_ws, 1)
    device = generator.w_avg.device
    on_device = latent.to(device) if isinstance(latent, Tensor) else tuple(style_map.to(device) for style_map in latent)
    # Every result's latent has the same file name, and NVIDIA's projector's, too, so that its folder tells faces apart.
    stem = path.parent.name if path.stem in ("latent", "projected_w") and path.parent.name else path.stem
    count = batch_size(on_device)
    return [Source(stem if count == 1 else f"{stem} {i}", select(on_device, i)) for i in range(count)]

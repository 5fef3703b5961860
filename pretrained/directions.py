"""Where do edit directions come from? Those that ship, files of this project, and published files, all read safely.

A direction of this project is one small safetensors: the vector, and a card with everything else that ``Direction`` holds.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editing.directions import Direction
from generators.base import Identity
from generators.errors import LatentMismatch, UnknownName
from pretrained import safetensors
from pretrained.cache import whole_file
from pretrained.catalog import DEFAULT_GENERATOR
from pretrained.errors import BrokenFile

ALIASES: Mapping[str, str] = {"yaw": "pose", "rotation": "pose"}
"""Other names of directions that ship."""
FORMAT = "direction-1"
_VECTOR = "vector"
# A vector for each of a hundred layers, in double precision, is far smaller.
_MAX_BYTES = 16 * 1024**2


def direction_names(generator: Identity | str = DEFAULT_GENERATOR) -> list[str]:
    """Return the names of the directions that ship for a generator, without aliases."""
    return sorted(_shipped(_name_of(generator)))


def known_names(generator: Identity | str = DEFAULT_GENERATOR) -> list[str]:
    """Return all names that ``load_direction`` takes for a generator, aliases included."""
    names = direction_names(generator)
    return sorted([*names, *(alias for alias, name in ALIASES.items() if name in names)])


def load_direction(name_or_path: str | Path, generator: Identity | str | None = None) -> Direction:
    """Load a direction that ships, by name, or from a file.

    Args:
        name_or_path: a name of ``known_names``; or a file of this project (``.safetensors``), of e4e (``.pt``) or of
            InterFaceGAN (``.npy``).
        generator: whose direction it is: for a name, the default generator where it is not given; for a published file,
            which does not say so itself, what the caller knows. A file that does say so is checked against it.

    Raises:
        UnknownName: neither a name nor a file.
        BrokenFile: the file cannot be read, or holds no direction.
        LatentMismatch: the direction belongs to another generator, or the file does not say to which and the caller neither.
    """
    text = str(name_or_path)
    shipped = _shipped(_name_of(generator or DEFAULT_GENERATOR))
    path = shipped.get(ALIASES.get(text, text), Path(name_or_path))
    if not path.is_file():
        raise UnknownName("direction (nor is there such a file)", text, known_names(generator or DEFAULT_GENERATOR))
    if path.suffix in (".pt", ".pth", ".npy"):
        if generator is None:
            raise LatentMismatch(
                f"{path}: this file does not say which generator its direction belongs to: name the generator, as in"
                f" load_direction({path.name!r}, generator={DEFAULT_GENERATOR!r})"
            )
        return _read_published(path, generator if isinstance(generator, Identity) else Identity(generator))
    direction = read_direction(path)
    if generator is not None:
        direction.check_generator(generator if isinstance(generator, Identity) else Identity(generator))
    return direction


def save_direction(path: Path | str, direction: Direction) -> None:
    """Write a direction, whole or not at all."""
    card = {
        "format": FORMAT,
        "name": direction.name,
        "generator": direction.generator.name,
        "generator_sha256": direction.generator.sha256,
        "space": direction.space,
        "layers": None if direction.layers is None else list(direction.layers),
        "unit": direction.unit,
        "sign": direction.sign,
        "learnt": direction.learnt,
        "quality": dict(direction.quality),
    }
    with whole_file(Path(path)) as temporary:
        safetensors.save(temporary, {_VECTOR: direction.vector}, card)


def read_direction(path: Path | str) -> Direction:
    """Read a file of ``save_direction``.

    Raises:
        BrokenFile: it is none.
    """
    tensors, card = safetensors.load(Path(path))
    vector = tensors.get(_VECTOR)
    if card.get("format") != FORMAT or vector is None or set(tensors) != {_VECTOR}:
        raise BrokenFile(f"{path}: no direction of this project: its card has the format {card.get('format')!r}")
    layers = card.get("layers")
    try:
        return Direction(
            name=_text(card, "name"),
            vector=vector.float(),
            generator=Identity(_text(card, "generator"), _text(card, "generator_sha256")),
            space=card.get("space"),  # type: ignore[arg-type]
            layers=None if layers is None else tuple(int(layer) for layer in layers),
            unit=float(card.get("unit", "missing")),
            sign=_text(card, "sign"),
            learnt=_text(card, "learnt"),
            quality=dict(card.get("quality", {})),
        )
    except (ValueError, TypeError) as error:
        raise BrokenFile(f"{path}: a damaged direction: {error}") from error


def _text(card: Mapping[str, Any], key: str) -> str:
    value = card.get(key)
    if not isinstance(value, str):
        raise ValueError(f"its card says {key}: {value!r}, expected text")
    return value


def _name_of(generator: Identity | str) -> str:
    return generator.name if isinstance(generator, Identity) else generator


def _shipped(generator: str) -> dict[str, Path]:
    """Return the files that ship for a generator, by name."""
    folder = Path(str(resources.files("pretrained.weights"))) / "directions" / generator
    # A name that leads elsewhere, such as "..", is no generator.
    if folder.parent.name != "directions" or ".." in generator:
        return {}
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def _read_published(path: Path, generator: Identity) -> Direction:
    """Read e4e's ``.pt`` or InterFaceGAN's ``.npy``: (1, width), (1, layers, width), or without the leading 1.

    Reference: github.com/omertov/encoder4editing, ``editings``; github.com/genforce/interfacegan, ``boundaries``.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise BrokenFile(f"{path}: {path.stat().st_size / 1e6:.0f} MB is too large for a direction")
    vector = _read_npy(path) if path.suffix == ".npy" else _read_pt(path)
    if vector.ndim in (2, 3) and vector.shape[0] == 1:
        vector = vector[0]
    if vector.ndim not in (1, 2) or 0 in vector.shape:
        raise BrokenFile(f"{path}: expected the shape (1, width) or (1, layers, width), got {tuple(vector.shape)}")
    try:
        learnt = f"published file {path.name}"
        return Direction.of(path.stem.removesuffix("_boundary"), vector, generator, learnt=learnt)
    except ValueError as error:
        raise BrokenFile(f"{path}: {error}") from error


def _read_pt(path: Path) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About odd pickles, which are refused below anyhow.
            # weights_only: tensors, nothing that runs. Some published files were saved from a GPU.
            vector = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenFile(f"{path}: expected a PyTorch file with one tensor, which could not be read: {reason}") from error
    if not isinstance(vector, Tensor) or not vector.is_floating_point():
        raise BrokenFile(f"{path}: expected one tensor of numbers, got {type(vector).__name__}")
    return vector


def _read_npy(path: Path) -> Tensor:
    try:
        with path.open("rb") as file:
            vector = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BrokenFile(f"{path}: expected a NumPy file with one array of numbers ({error})") from error
    if vector.dtype.kind != "f":
        raise BrokenFile(f"{path}: expected one array of floating-point numbers")
    return torch.from_numpy(vector.astype(np.float32))

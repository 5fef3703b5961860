"""Where do edit directions come from? Those that ship, files of this project, and published files, all read safely.

A direction of this project is one small safetensors: the vector, and a card with everything else that ``Direction`` holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from editing.directions import Direction
from generators.base import Identity
from generators.errors import LatentMismatch, UnknownName
from pretrained import safetensors
from pretrained.cache import whole_file
from pretrained.catalog import DEFAULT_GENERATOR
from pretrained.errors import BrokenFile
from pretrained.published import read_components, read_published_direction

ALIASES: Mapping[str, str] = {"yaw": "pose", "rotation": "pose"}
"""Other names of directions that ship."""
FORMAT = "direction-1"
_VECTOR = "vector"


def direction_names(generator: Identity | str = DEFAULT_GENERATOR) -> list[str]:
    """Return the names of the directions that ship for a generator, without aliases."""
    return sorted(_shipped(_name_of(generator)))


def known_names(generator: Identity | str = DEFAULT_GENERATOR) -> list[str]:
    """Return all names that ``load_direction`` takes for a generator, aliases included."""
    names = direction_names(generator)
    return sorted([*names, *(alias for alias, name in ALIASES.items() if name in names)])


def split_component(name_or_path: str | Path) -> tuple[Path, int | None]:
    """Split ``components.pt#46`` into the file and the number of a component; None where none is named."""
    text = str(name_or_path)
    path, sign, number = text.rpartition("#")
    if not sign or not re.fullmatch(r"\d{1,6}", number, re.ASCII) or Path(text).is_file():
        return Path(text), None
    return Path(path), int(number)


def is_direction_file(name_or_path: str | Path) -> bool:
    """Tell whether this is a file, or a component in a file, and no name of a direction that ships."""
    return split_component(name_or_path)[0].is_file()


def load_direction(name_or_path: str | Path, generator: Identity | str | None = None) -> Direction:
    """Load a direction that ships, by name, or from a file.

    Args:
        name_or_path: a name of ``known_names``; a file of this project (``.safetensors``); a published file, see
            ``pretrained.published``; or one component of such a file: ``ffhq_pca.pt#46``.
        generator: whose direction it is: for a name, the default generator where it is not given; for a published file,
            which does not say so itself, what the caller knows. A file that does say so is checked against it.

    Raises:
        UnknownName: neither a name nor a file.
        BrokenFile: the file cannot be read, or holds no direction.
        EditError: the file has no component of that number.
        LatentMismatch: the direction belongs to another generator, or the file does not say to which and the caller neither.
    """
    text = str(name_or_path)
    shipped = _shipped(_name_of(generator or DEFAULT_GENERATOR)).get(ALIASES.get(text, text))
    path, component = (shipped, None) if shipped else split_component(text)
    if not path.is_file():
        raise UnknownName("direction (nor is there such a file)", text, known_names(generator or DEFAULT_GENERATOR))
    identity = generator if isinstance(generator, Identity) or generator is None else Identity(generator)
    if path.suffix != ".safetensors":
        if identity is None:
            raise LatentMismatch(
                f"{path}: this file does not say which generator its direction belongs to: name the generator, as in"
                f" load_direction({path.name!r}, generator={DEFAULT_GENERATOR!r})"
            )
        if component is not None:
            return read_components(path, identity).direction(component, f"{path.stem}#{component}")
        return read_published_direction(path, identity)
    direction = read_direction(path)
    if identity is not None:
        direction.check_generator(identity)
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
